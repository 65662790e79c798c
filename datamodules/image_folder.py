"""Image trees of the form ``root/CLASS/IMAGE``, such as an unpacked CIFAR-10."""

from typing import Any

from datamodules.augmentations import crop_and_flip
from datamodules.base import SourceDataModule
from datamodules.corrupted_stream import CorruptedStream
from datamodules.decoding import check_sizes
from datamodules.files import ImageFiles, Unreadable, check_same_classes, check_unreadable, class_folders, class_tree
from datamodules.splits import check_split, hold_out


class ImageFolderSource(SourceDataModule):
    """An image tree for source training.

    ``heldout`` and ``test`` are the same images: those of ``val_root``, or a share of the training tree.
    """

    def __init__(
        self,
        train_root: str,
        val_root: str | None = None,
        image_size: int | None = None,
        resize: int | None = None,
        augment: bool = True,
        val_share: float = 0.1,
        split_seed: int = 0,
        unreadable: Unreadable = "refuse",
        **options: Any,  # noqa: ANN401 - the base names and types them
    ) -> None:
        """Check the arguments and name the classes; images are listed in ``setup``.

        Args:
            train_root: Folder with one sub-folder per class.
            val_root: The same for validation; ``None`` holds out ``val_share`` of the training images instead.
            image_size: Scale the shorter side to ``resize`` and cut out the central square of this side; keep the size
                if ``None``.
            resize: Length of the shorter side before cutting; ``image_size`` if ``None``.
            augment: Crop and flip the training images at random.
            val_share: Share to hold out, between 0 and 1; the stream's must be the same.
            split_seed: Non-negative seed of the split; the stream's must be the same.
            unreadable: ``refuse`` stops at an image that cannot be read; ``skip`` decodes all images in ``setup`` and
                leaves these out, with a warning.
            **options: Arguments of ``SourceDataModule``.

        Raises:
            InputError: If an argument is out of range, a tree is missing, or the trees have different classes.
        """
        super().__init__(**options)
        check_sizes(image_size, resize)
        check_split(val_share, split_seed)
        self.class_names = class_folders(train_root, "train_root")
        if val_root is not None:
            check_same_classes(self.class_names, val_root, "val_root")
        self.train_root = train_root
        self.val_root = val_root
        self.image_size = image_size
        self.resize = resize
        self.augment = crop_and_flip if augment else None
        self.val_share = val_share
        self.split_seed = split_seed
        self.unreadable = check_unreadable(unreadable)

    def setup(self, stage: str | None = None) -> None:
        """List the images of the trees, once.

        Args:
            stage: Ignored: all stages need the same.
        """
        if hasattr(self, "train"):
            return
        data = self._images(self.train_root, "train_root")
        if self.val_root is None:
            self.train, self.heldout = hold_out(data, self.val_share, self.split_seed)
        else:
            self.train, self.heldout = data, self._images(self.val_root, "val_root")
        self.test = self.heldout

    def _images(self, root: str, argument: str) -> ImageFiles:
        folders = class_tree(root, self.class_names)
        return ImageFiles(folders, argument, self.image_size, self.resize, self.unreadable)


class ImageFolderStream(CorruptedStream):
    """A stream of the images of a tree, as they are or corrupted."""

    def __init__(
        self,
        root: str,
        source_root: str | None = None,
        image_size: int | None = None,
        resize: int | None = None,
        val_share: float = 0.1,
        split_seed: int = 0,
        unreadable: Unreadable = "refuse",
        **options: Any,  # noqa: ANN401 - the base names and types them
    ) -> None:
        """Check the arguments and name the classes; images are listed in ``setup``.

        Args:
            root: Folder with one sub-folder per class: the target images.
            source_root: The tree of source training, for ``source_dataloader`` and ``val_dataloader``; ``None`` gives
                neither.
            image_size: Scale the shorter side to ``resize`` and cut out the central square of this side; keep the size
                if ``None``.
            resize: Length of the shorter side before cutting; ``image_size`` if ``None``. ImageNet models are usually
                evaluated with 256 and 224.
            val_share: Share of the source tree that is held out, between 0 and 1; as in source training.
            split_seed: Non-negative seed of that split; as in source training.
            unreadable: ``refuse`` stops at an image that cannot be read; ``skip`` decodes all images in ``setup`` and
                leaves these out, with a warning.
            **options: Arguments of ``CorruptedStream``; ``domains`` is ``["clean"]`` by default.

        Raises:
            InputError: If an argument is out of range, a tree is missing, or the trees have different classes.
        """
        super().__init__(**options)
        check_sizes(image_size, resize)
        check_split(val_share, split_seed)
        self.class_names = class_folders(root, "root")
        if source_root is not None:
            check_same_classes(self.class_names, source_root, "source_root")
        self.root = root
        self.source_root = source_root
        self.image_size = image_size
        self.resize = resize
        self.val_share = val_share
        self.split_seed = split_seed
        self.unreadable = check_unreadable(unreadable)

    def setup(self, stage: str | None = None) -> None:
        """List the images of the trees, once.

        Args:
            stage: Ignored: all stages need the same.
        """
        if hasattr(self, "stream"):
            return
        self.stream = self._images(self.root, "root")
        if self.source_root is not None:
            data = self._images(self.source_root, "source_root")
            self.source, self.heldout = hold_out(data, self.val_share, self.split_seed)

    def _images(self, root: str, argument: str) -> ImageFiles:
        folders = class_tree(root, self.class_names)
        return ImageFiles(folders, argument, self.image_size, self.resize, self.unreadable)
