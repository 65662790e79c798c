"""CIFAR-10 and CIFAR-100: to train on, and as streams that are corrupted on the fly."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from datamodules.arrays import ByteImages
from datamodules.augmentations import crop_and_flip
from datamodules.base import SourceDataModule
from datamodules.checks import check_name
from datamodules.corrupted_stream import CorruptedStream
from datamodules.splits import check_split, hold_out
from tta.errors import InputError, first_line

Name = Literal["cifar10", "cifar100"]

_CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100_CLASSES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle "
    "caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant "
    "flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man "
    "maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree "
    "plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train "
    "trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)

CLASSES = {"cifar10": _CIFAR10_CLASSES.split(), "cifar100": _CIFAR100_CLASSES.split()}
_READERS: dict[str, type[CIFAR10]] = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def check_cifar(name: Name, root: str, argument: str, download: bool = False) -> Name:
    """Check that the files are there, or will be.

    Args:
        name: ``cifar10`` or ``cifar100``.
        root: Folder that holds, or gets, the unpacked folder of the Python version.
        argument: Name of the argument that gave ``root``, for the message.
        download: The files may still be missing.

    Returns:
        ``name``, unchanged.

    Raises:
        InputError: If the name is unknown or the folder is missing.
    """
    check_name(name, CLASSES, "name")
    folder = Path(root) / _READERS[name].base_folder
    if not (download or folder.is_dir()):
        raise InputError(
            f"{argument}: no {name} in {root!r} (looked for {folder.resolve()}); set download=true, or unpack "
            f"{_READERS[name].url} there."
        )
    return name


def read_cifar(name: Name, root: str, train: bool, argument: str, download: bool = False) -> ByteImages:
    """Read the training or the test images; checks the files' sums.

    Args:
        name: ``cifar10`` or ``cifar100``.
        root: Folder that holds the unpacked folder of the Python version.
        train: The training images, or the test images.
        argument: Name of the argument that gave ``root``, for the message.
        download: Get the files first if they are missing.

    Returns:
        Images of 32x32 pixels.

    Raises:
        InputError: If the files are missing, are not the published ones, or cannot be downloaded.
    """
    try:
        data = _READERS[name](root, train=train, download=download)
    except (RuntimeError, OSError) as error:
        folder = Path(root) / _READERS[name].base_folder
        raise InputError(
            f"{argument}: {name} in {root!r} cannot be read ({first_line(error)}; looked for {folder.resolve()}); "
            f"delete this folder if it is there, then set download=true, or unpack {_READERS[name].url} there."
        ) from error
    return ByteImages(data.data, np.asarray(data.targets, dtype=np.int64))


class CIFARSource(SourceDataModule):
    """CIFAR-10 or CIFAR-100 for source training; ``test`` is the official test set.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html.
    """

    def __init__(
        self,
        root: str,
        name: Name = "cifar10",
        download: bool = False,
        augment: bool = True,
        val_share: float = 0.1,
        split_seed: int = 0,
        **options: Any,  # noqa: ANN401 - the base names and types them
    ) -> None:
        """Check the arguments; images are read in ``setup``.

        Args:
            root: Folder that holds ``cifar-10-batches-py`` or ``cifar-100-python``.
            name: ``cifar10`` or ``cifar100``.
            download: Get the files (160 MiB) if they are missing.
            augment: Crop and flip the training images at random.
            val_share: Share of the training images to hold out, between 0 and 1; the stream's must be the same.
            split_seed: Non-negative seed of the split; the stream's must be the same.
            **options: Arguments of ``SourceDataModule``.

        Raises:
            InputError: If an argument is out of range or the files are missing.
        """
        super().__init__(**options)
        check_split(val_share, split_seed)
        self.name: Name = check_cifar(name, root, "root", download)
        self.class_names = CLASSES[name]
        self.root = root
        self.download = download
        self.augment = crop_and_flip if augment else None
        self.val_share = val_share
        self.split_seed = split_seed

    def prepare_data(self) -> None:
        """Download the files if that is wanted; a trainer calls it in one process only."""
        if self.download:
            read_cifar(self.name, self.root, False, "root", download=True)

    def setup(self, stage: str | None = None) -> None:
        """Read the images, once.

        Args:
            stage: Ignored: all stages need the same.
        """
        if hasattr(self, "train"):
            return
        data = read_cifar(self.name, self.root, True, "root", self.download)
        self.train, self.heldout = hold_out(data, self.val_share, self.split_seed)
        self.test = read_cifar(self.name, self.root, False, "root")


class CIFARStream(CorruptedStream):
    """A stream of the test images of CIFAR-10 or CIFAR-100, corrupted on the fly."""

    def __init__(
        self,
        root: str,
        name: Name = "cifar10",
        download: bool = False,
        val_share: float = 0.1,
        split_seed: int = 0,
        **options: Any,  # noqa: ANN401 - the base names and types them
    ) -> None:
        """Check the arguments; images are read in ``setup``.

        Args:
            root: Folder that holds ``cifar-10-batches-py`` or ``cifar-100-python``.
            name: ``cifar10`` or ``cifar100``.
            download: Get the files (160 MiB) if they are missing.
            val_share: Share of the training images that is held out, between 0 and 1; as in source training.
            split_seed: Non-negative seed of that split; as in source training.
            **options: Arguments of ``CorruptedStream``.

        Raises:
            InputError: If an argument is out of range or the files are missing.
        """
        super().__init__(**options)
        check_split(val_share, split_seed)
        self.name: Name = check_cifar(name, root, "root", download)
        self.class_names = CLASSES[name]
        self.root = root
        self.download = download
        self.val_share = val_share
        self.split_seed = split_seed

    def prepare_data(self) -> None:
        """Download the files if that is wanted; a trainer calls it in one process only."""
        if self.download:
            read_cifar(self.name, self.root, False, "root", download=True)

    def setup(self, stage: str | None = None) -> None:
        """Read the images, once.

        Args:
            stage: Ignored: all stages need the same.
        """
        if hasattr(self, "stream"):
            return
        self.stream = read_cifar(self.name, self.root, False, "root", self.download)
        data = read_cifar(self.name, self.root, True, "root")
        self.source, self.heldout = hold_out(data, self.val_share, self.split_seed)
