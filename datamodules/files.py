"""Image files on disk: class folders and the images in them, decoded on demand."""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from datamodules.checks import check_name
from datamodules.decoding import find_unreadable, fit_size, load_image
from datamodules.path_table import PathTable
from tta.errors import InputError

Unreadable = Literal["refuse", "skip"]


def class_folders(root: str, argument: str, layout: str = "ROOT/CLASS/IMAGE, one folder per class") -> list[str]:
    """List the classes of an image tree, or the domains of a tree of trees.

    Args:
        root: Folder with one sub-folder per class; hidden ones do not count.
        argument: Name of the argument that gave it, for the message.
        layout: What is expected there, for the message.

    Returns:
        Names of the sub-folders, ascending.

    Raises:
        InputError: If there is no such folder or it has no sub-folder.
    """
    path = Path(root)
    names = _folders_in(path) if path.is_dir() else []
    if not names:
        problem = "has no class folders" if path.is_dir() else "is no folder"
        raise InputError(
            f"{argument}: {root!r} {problem} (looked at {path.resolve()}); "
            f"download the data set and unpack it as {layout}."
        )
    return names


def _folders_in(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def check_same_classes(expected: Sequence[str], root: str, argument: str) -> None:
    """Refuse a tree with other classes.

    Args:
        expected: Classes of the other tree, ascending.
        root: Folder with one sub-folder per class.
        argument: Name of the argument that gave it, for the message.

    Raises:
        InputError: If there is no such tree or its classes are others.
    """
    odd = sorted(set(class_folders(root, argument)) ^ set(expected))
    if odd:
        raise InputError(
            f"{argument}: {root!r} has other classes, the trees differ in {odd}; give trees of one data set."
        )


def class_tree(root: str, classes: Sequence[str]) -> list[tuple[str, int]]:
    """Number the class folders of a tree.

    Args:
        root: Folder with one sub-folder per class.
        classes: Their names, in the order of the numbers.

    Returns:
        Path and number of each, as ``ImageFiles`` takes them.
    """
    return [(os.path.join(root, name), number) for number, name in enumerate(classes)]


def check_unreadable(unreadable: Unreadable) -> Unreadable:
    """Return the choice if it is a known one.

    Args:
        unreadable: What to do about images that cannot be read.

    Raises:
        InputError: If it is neither ``refuse`` nor ``skip``.
    """
    check_name(unreadable, ("refuse", "skip"), "unreadable")
    return unreadable


def image_names(folder: str) -> list[str]:
    """List the image files of a folder and of the folders in it.

    Args:
        folder: An existing folder.

    Returns:
        Paths relative to the folder, ascending, of the files with an image's extension; hidden files do not count.
    """
    return sorted(_walk(folder, ""))


def _walk(folder: str, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(IMG_EXTENSIONS):
                yield prefix + entry.name
            elif entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}{os.sep}")


class ImageFiles:
    """Images of class folders, decoded when asked for.

    Attributes:
        labels: Class of every image, int64, shape ``(N,)``.
        folder: Number of every image's folder, int32, shape ``(N,)``.
        skipped: Paths of the files that are left out because they cannot be read.
    """

    def __init__(
        self,
        folders: Sequence[tuple[str, int]],
        argument: str,
        image_size: int | None = None,
        resize: int | None = None,
        unreadable: Unreadable = "refuse",
    ) -> None:
        """List the images.

        Args:
            folders: Path and class of each folder; its images are all of this class.
            argument: Name of the argument that gave the folders, for messages.
            image_size: Cut out the central square of this side; keep the size if ``None``.
            resize: Scale the shorter side to this before cutting; ``image_size`` if ``None``.
            unreadable: ``refuse`` raises when such an image is asked for; ``skip`` decodes every file now and leaves
                out those that cannot be read, with one warning.

        Raises:
            InputError: If a folder has no image.
        """
        self._paths = PathTable([path for path, _ in folders], (image_names(path) for path, _ in folders))
        counts = np.bincount(self._paths.folder, minlength=len(folders))
        empty = [path for (path, _), count in zip(folders, counts, strict=True) if count == 0]
        if empty:
            raise InputError(
                f"{argument}: no image in {len(empty)} of {len(folders)} class folders, such as {empty[0]!r}; "
                f"add images ({', '.join(IMG_EXTENSIONS)}) to them or delete them."
            )
        self.image_size = image_size
        self.resize = resize
        self.skipped = self._skip(argument) if unreadable == "skip" else []
        self.folder = self._paths.folder
        self.labels = np.array([label for _, label in folders], dtype=np.int64)[self.folder]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image, float32 ``(3, H, W)`` in [0, 1], and its class."""
        pixels = load_image(self.path(index))
        return fit_size(pixels, self.image_size, self.resize), int(self.labels[index])

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return self._paths[index]

    def _skip(self, argument: str) -> list[str]:
        bad = find_unreadable(self.path, len(self._paths))
        skipped = [self.path(position) for position in bad]
        if skipped:
            shown = ", ".join(skipped[:3]) + (", ..." if len(skipped) > 3 else "")
            warnings.warn(
                f"{argument}: {len(skipped)} of {len(self._paths)} images cannot be read and are left out: {shown}",
                stacklevel=2,
            )
            self._paths.keep(np.delete(np.arange(len(self._paths), dtype=np.int64), bad))
        return skipped
