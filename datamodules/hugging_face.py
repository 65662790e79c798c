"""Image classification data of the ``datasets`` library: from its hub, or saved in a folder."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from datamodules.augmentations import crop_and_flip
from datamodules.base import SourceDataModule
from datamodules.checks import check_name
from datamodules.corrupted_stream import CorruptedStream
from datamodules.decoding import READING_ERRORS, check_sizes, fit_size
from datamodules.splits import check_split, hold_out
from tta.errors import InputError, first_line


def read_split(path: str, split: str, name: str | None) -> Any:  # noqa: ANN401 - the library is optional
    """Open one split; downloads it if it is on the hub and not yet in the library's cache.

    Args:
        path: Folder written by ``save_to_disk``, or whatever ``datasets.load_dataset`` takes: a name on the hub, or a
            folder of images or tables.
        split: Such as ``train``; a slice such as ``train[:10%]`` only where ``load_dataset`` reads the data.
        name: Configuration of the data set, where it has several.

    Returns:
        A ``datasets.Dataset``, whose files are mapped into memory.

    Raises:
        InputError: If the library is missing, or there is no such data set or split.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            "path: reading Hugging Face data needs the datasets library; install it by pip install 'tta[huggingface]'."
        ) from error
    try:
        if not any((Path(path) / file).is_file() for file in ("state.json", "dataset_dict.json")):
            return datasets.load_dataset(path, name, split=split)
        data = datasets.load_from_disk(path)
    except Exception as error:
        # The library lets any error of the hub, of formats and of scripts through.
        raise InputError(
            f"path: cannot open split {split!r} of {path!r} ({first_line(error)}); give a name on the hub, or a folder "
            "written by save_to_disk."
        ) from error
    return data[check_name(split, data, "split")] if isinstance(data, datasets.DatasetDict) else data


class HubImages:
    """Images of a split, decoded when asked for.

    Attributes:
        labels: Class of every image, int64, shape ``(N,)``.
        class_names: Names of the classes, in the order of their numbers.
    """

    def __init__(
        self,
        data: Any,  # noqa: ANN401 - the library is optional
        image_column: str,
        label_column: str,
        image_size: int | None,
        resize: int | None,
    ) -> None:
        """Check the columns and read the labels.

        Args:
            data: A ``datasets.Dataset``.
            image_column: Column of images.
            label_column: Column of classes.
            image_size: Cut out the central square of this side; keep the size if ``None``.
            resize: Scale the shorter side to this before cutting; ``image_size`` if ``None``.

        Raises:
            InputError: If a column is missing or holds something else.
        """
        import datasets

        for column, argument in ((image_column, "image_column"), (label_column, "label_column")):
            check_name(column, data.features, argument)
        if not isinstance(data.features[image_column], datasets.Image):
            raise InputError(f"image_column: {image_column!r} holds {data.features[image_column]}, not images.")
        label = data.features[label_column]
        if not isinstance(label, datasets.ClassLabel):
            raise InputError(
                f"label_column: {label_column!r} holds {label}, not a ClassLabel; apply class_encode_column to it."
            )
        self.class_names: list[str] = list(label.names)
        self.labels = np.asarray(data.with_format("numpy")[label_column][:], dtype=np.int64)
        self.image_column = image_column
        self.image_size = image_size
        self.resize = resize
        self._data = data.select_columns([image_column])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image, float32 ``(3, H, W)`` in [0, 1], and its class.

        Raises:
            InputError: If the image cannot be decoded.
        """
        try:
            image: Image.Image = self._data[index][self.image_column]
            pixels = F.pil_to_tensor(image.convert("RGB"))
        except READING_ERRORS as error:
            raise InputError(
                f"image: row {index} cannot be read ({first_line(error)}); leave it out of the data set."
            ) from error
        return fit_size(pixels, self.image_size, self.resize), int(self.labels[index])


class HuggingFaceSource(SourceDataModule):
    """A data set of the ``datasets`` library for source training."""

    def __init__(
        self,
        path: str,
        split: str = "train",
        val_split: str | None = None,
        name: str | None = None,
        image_column: str = "image",
        label_column: str = "label",
        image_size: int | None = None,
        resize: int | None = None,
        augment: bool = True,
        val_share: float = 0.1,
        split_seed: int = 0,
        **options: Any,  # noqa: ANN401 - the base names and types them
    ) -> None:
        """Check the arguments and open the data, which names the classes; the first time, this downloads it.

        Args:
            path: Name on the hub, or a folder written by ``save_to_disk``.
            split: The images to train on.
            val_split: The images of ``heldout`` and ``test``; ``None`` holds out ``val_share`` of ``split`` instead.
            name: Configuration of the data set, where it has several.
            image_column: Column of images.
            label_column: Column of classes, a ``ClassLabel``.
            image_size: Scale the shorter side to ``resize`` and cut out the central square of this side; keep the size
                if ``None``.
            resize: Length of the shorter side before cutting; ``image_size`` if ``None``.
            augment: Crop and flip the training images at random.
            val_share: Share to hold out, between 0 and 1; the stream's must be the same.
            split_seed: Non-negative seed of the split; the stream's must be the same.
            **options: Arguments of ``SourceDataModule``.

        Raises:
            InputError: If an argument is out of range, the library is missing, the data cannot be opened, or the
                splits have different classes.
        """
        super().__init__(**options)
        check_sizes(image_size, resize)
        check_split(val_share, split_seed)
        columns = (image_column, label_column, image_size, resize)
        self._data = HubImages(read_split(path, split, name), *columns)
        self._val = None if val_split is None else HubImages(read_split(path, val_split, name), *columns)
        self.class_names = _same_names(self._data, self._val, "val_split")
        self.augment = crop_and_flip if augment else None
        self.val_share = val_share
        self.split_seed = split_seed

    def setup(self, stage: str | None = None) -> None:
        """Split the images.

        Args:
            stage: Ignored: all stages need the same.
        """
        if self._val is None:
            self.train, self.heldout = hold_out(self._data, self.val_share, self.split_seed)
        else:
            self.train, self.heldout = self._data, self._val
        self.test = self.heldout


class HuggingFaceStream(CorruptedStream):
    """A split of a data set of the ``datasets`` library as a stream, as it is or corrupted."""

    def __init__(
        self,
        path: str,
        split: str = "test",
        source_split: str | None = None,
        name: str | None = None,
        image_column: str = "image",
        label_column: str = "label",
        image_size: int | None = None,
        resize: int | None = None,
        val_share: float = 0.1,
        split_seed: int = 0,
        **options: Any,  # noqa: ANN401 - the base names and types them
    ) -> None:
        """Check the arguments and open the data, which names the classes; the first time, this downloads it.

        Args:
            path: Name on the hub, or a folder written by ``save_to_disk``.
            split: The target images.
            source_split: The images of source training, for ``source_dataloader`` and ``val_dataloader``; ``None``
                gives neither.
            name: Configuration of the data set, where it has several.
            image_column: Column of images.
            label_column: Column of classes, a ``ClassLabel``.
            image_size: Scale the shorter side to ``resize`` and cut out the central square of this side; keep the size
                if ``None``.
            resize: Length of the shorter side before cutting; ``image_size`` if ``None``.
            val_share: Share of the source images that is held out, between 0 and 1; as in source training.
            split_seed: Non-negative seed of that split; as in source training.
            **options: Arguments of ``CorruptedStream``.

        Raises:
            InputError: If an argument is out of range, the library is missing, the data cannot be opened, or the
                splits have different classes.
        """
        super().__init__(**options)
        check_sizes(image_size, resize)
        check_split(val_share, split_seed)
        columns = (image_column, label_column, image_size, resize)
        self._data = HubImages(read_split(path, split, name), *columns)
        self._clean = None if source_split is None else HubImages(read_split(path, source_split, name), *columns)
        self.class_names = _same_names(self._data, self._clean, "source_split")
        self.val_share = val_share
        self.split_seed = split_seed

    def setup(self, stage: str | None = None) -> None:
        """Split the source images, if there are any.

        Args:
            stage: Ignored: all stages need the same.
        """
        self.stream = self._data
        if self._clean is not None:
            self.source, self.heldout = hold_out(self._clean, self.val_share, self.split_seed)


def _same_names(data: HubImages, other: HubImages | None, argument: str) -> list[str]:
    if other is not None and other.class_names != data.class_names:
        odd = sorted(set(other.class_names) ^ set(data.class_names))
        raise InputError(f"{argument}: its classes differ from those of split, in {odd}; give splits of one data set.")
    return data.class_names
