"""Image trees of the form ``root/CLASS/IMAGE``, such as an unpacked CIFAR-10."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import functional as F

from datamodules.augmentations import crop_and_flip
from datamodules.base import SourceDataModule, StreamDataModule
from datamodules.checks import check_at_least
from datamodules.datasets import ImageData, ImageSubset
from datamodules.samplers import stratified_split
from tta.errors import InputError


def class_folders(root: str, argument: str) -> list[str]:
    """List the classes of an image tree.

    Args:
        root: Folder with one sub-folder per class.
        argument: Name of the argument that gave it, for the message.

    Returns:
        Names of the sub-folders, ascending; a class's number is its position.

    Raises:
        InputError: If there is no such folder or it has no sub-folder.
    """
    path = Path(root)
    names = sorted(entry.name for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []
    if not names:
        problem = "has no class folders" if path.is_dir() else "is no folder"
        raise InputError(
            f"{argument}: {root!r} {problem} (looked at {path.resolve()}); "
            "download the data set and unpack it as ROOT/CLASS/IMAGE, one folder per class."
        )
    return names


def load_image(path: str) -> Tensor:
    """Decode an image file.

    Args:
        path: A file in any format that Pillow reads.

    Returns:
        uint8, shape ``(3, H, W)``.

    Raises:
        InputError: If the file cannot be read as an image.
    """
    try:
        with Image.open(path) as image:
            pixels: Tensor = F.pil_to_tensor(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"image: {path!r} cannot be read ({reason}); replace or delete the file.") from error
    return pixels


class FolderImages:
    """Images of a tree, decoded when asked for."""

    def __init__(self, root: str, image_size: int | None, argument: str) -> None:
        """List the images.

        Args:
            root: Folder with one sub-folder per class.
            image_size: Scale the shorter side to this and cut out the central square; keep the size if ``None``.
            argument: Name of the argument that gave ``root``, for messages.

        Raises:
            InputError: If the tree is missing or a class has no image.
        """
        class_folders(root, argument)
        try:
            self.folder = ImageFolder(root, loader=load_image)
        except FileNotFoundError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{argument}: {root!r}: {reason} Add images to these folders or delete them.") from error
        self.labels = np.asarray(self.folder.targets, dtype=np.int64)
        self.image_size = image_size

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image, float32 ``(3, H, W)`` in [0, 1], and its class."""
        image, label = self.folder[index]
        image = F.to_dtype(image, torch.float32, scale=True)
        if self.image_size is not None and image.shape[-2:] != (self.image_size, self.image_size):
            image = F.center_crop(F.resize(image, [self.image_size], antialias=True), [self.image_size])
        return image.clamp(0, 1), label


def _check(image_size: int | None, val_share: float, split_seed: int) -> None:
    if image_size is not None:
        check_at_least(image_size, 8, "image_size", "leave it out to keep the images as they are")
    check_at_least(split_seed, 0, "split_seed", "use a non-negative number")
    if not 0 < val_share < 1:
        raise InputError(f"val_share: {val_share} is not between 0 and 1; 0.1 holds out every tenth image.")


def _same_classes(expected: list[str], root: str, argument: str) -> None:
    found = class_folders(root, argument)
    if found != expected:
        odd = sorted(set(found) ^ set(expected))
        raise InputError(
            f"{argument}: {root!r} has other classes, the trees differ in {odd}; give trees of one data set."
        )


def _hold_out(data: ImageData, share: float, seed: int) -> tuple[ImageSubset, ImageSubset]:
    train, heldout = stratified_split(data.labels, (1 - share, share), seed)
    return ImageSubset(data, train), ImageSubset(data, heldout)


class ImageFolderSource(SourceDataModule):
    """An image tree for source training.

    ``heldout`` and ``test`` are the same images: those of ``val_root``, or a share of the training tree.
    """

    def __init__(
        self,
        train_root: str,
        val_root: str | None = None,
        image_size: int | None = None,
        augment: bool = True,
        val_share: float = 0.1,
        split_seed: int = 0,
        **options: Any,  # noqa: ANN401 - the base names and types them
    ) -> None:
        """Check the arguments and name the classes; images are listed in ``setup``.

        Args:
            train_root: Folder with one sub-folder per class.
            val_root: The same for validation; ``None`` holds out ``val_share`` of the training images instead.
            image_size: Scale the shorter side to this and cut out the central square; keep the size if ``None``.
            augment: Crop and flip the training images at random.
            val_share: Share to hold out, between 0 and 1; the stream's must be the same.
            split_seed: Non-negative seed of the split; the stream's must be the same.
            **options: Arguments of ``SourceDataModule``.

        Raises:
            InputError: If an argument is out of range, a tree is missing, or the trees have different classes.
        """
        super().__init__(**options)
        _check(image_size, val_share, split_seed)
        self.class_names = class_folders(train_root, "train_root")
        if val_root is not None:
            _same_classes(self.class_names, val_root, "val_root")
        self.train_root = train_root
        self.val_root = val_root
        self.image_size = image_size
        self.augment = crop_and_flip if augment else None
        self.val_share = val_share
        self.split_seed = split_seed

    def setup(self, stage: str | None = None) -> None:
        """List the images of the trees.

        Args:
            stage: Ignored: all stages need the same.
        """
        data = FolderImages(self.train_root, self.image_size, "train_root")
        if self.val_root is None:
            self.train, self.heldout = _hold_out(data, self.val_share, self.split_seed)
        else:
            self.train, self.heldout = data, FolderImages(self.val_root, self.image_size, "val_root")
        self.test = self.heldout


class ImageFolderStream(StreamDataModule):
    """A stream of the images of a tree, as they are or corrupted."""

    default_domains: ClassVar[tuple[str, ...]] = ("clean",)

    def __init__(
        self,
        root: str,
        source_root: str | None = None,
        image_size: int | None = None,
        val_share: float = 0.1,
        split_seed: int = 0,
        **options: Any,  # noqa: ANN401 - the base names and types them
    ) -> None:
        """Check the arguments and name the classes; images are listed in ``setup``.

        Args:
            root: Folder with one sub-folder per class: the target images.
            source_root: The tree of source training, for ``source_dataloader`` and ``val_dataloader``; ``None`` gives
                neither.
            image_size: Scale the shorter side to this and cut out the central square; keep the size if ``None``.
            val_share: Share of the source tree that is held out, between 0 and 1; as in source training.
            split_seed: Non-negative seed of that split; as in source training.
            **options: Arguments of ``StreamDataModule``; ``domains`` is ``["clean"]`` by default.

        Raises:
            InputError: If an argument is out of range, a tree is missing, or the trees have different classes.
        """
        super().__init__(**options)
        _check(image_size, val_share, split_seed)
        self.class_names = class_folders(root, "root")
        if source_root is not None:
            _same_classes(self.class_names, source_root, "source_root")
        self.root = root
        self.source_root = source_root
        self.image_size = image_size
        self.val_share = val_share
        self.split_seed = split_seed

    def setup(self, stage: str | None = None) -> None:
        """List the images of the trees.

        Args:
            stage: Ignored: all stages need the same.
        """
        self.stream = FolderImages(self.root, self.image_size, "root")
        if self.source_root is not None:
            data = FolderImages(self.source_root, self.image_size, "source_root")
            self.source, self.heldout = _hold_out(data, self.val_share, self.split_seed)
