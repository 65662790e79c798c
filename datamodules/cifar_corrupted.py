"""CIFAR-10-C and CIFAR-100-C, the published corrupted test images."""

from pathlib import Path
from typing import Any

import numpy as np

from datamodules.arrays import StoredRows, check_array
from datamodules.cifar import CLASSES, Name, check_cifar, read_cifar
from datamodules.datasets import ImageData
from datamodules.stored_corruptions import SEVERITIES, StoredCorruptions
from tta.errors import InputError

PLACES = {
    "cifar10": "https://zenodo.org/records/2535967",
    "cifar100": "https://zenodo.org/records/3555552",
}


class CIFARCorrupted(StoredCorruptions):
    """A stream of CIFAR-10-C or CIFAR-100-C.

    Every file holds the 10,000 test images five times, under severities 1 to 5. Files are mapped into memory: a batch
    reads its own rows. Source: Hendrycks and Dietterich, https://arxiv.org/abs/1903.12261.
    """

    def __init__(
        self,
        root: str,
        name: Name = "cifar10",
        source_root: str | None = None,
        **options: Any,  # noqa: ANN401 - the base names and types them
    ) -> None:
        """Check the arguments; files are opened in ``setup`` and when a domain is first shown.

        Args:
            root: Folder with ``labels.npy`` and one ``CORRUPTION.npy`` per corruption.
            name: ``cifar10`` or ``cifar100``.
            source_root: Folder that holds the clean ``cifar-10-batches-py`` or ``cifar-100-python``. Its training
                images are the source, its test images measure forgetting and are the domain ``clean``; note that
                these are the images of the stream before corruption. ``None`` gives none of this.
            **options: Arguments of ``StreamDataModule``.

        Raises:
            InputError: If an argument is out of range, or files are missing.
        """
        self.root = root
        self.source_root = source_root
        self._names = _corruptions_in(root, name)
        super().__init__(**options)
        if source_root is not None:
            check_cifar(name, source_root, "source_root")
        self.name: Name = name
        self.class_names = CLASSES[name]

    def stored_names(self) -> list[str]:
        """Names of the files, with ``clean`` if there is a ``source_root``."""
        return self._names if self.source_root is None else [*self._names, "clean"]

    def setup(self, stage: str | None = None) -> None:
        """Read the labels, and the clean images if there are any, once.

        Args:
            stage: Ignored: all stages need the same.

        Raises:
            InputError: If the labels are not what is expected.
        """
        if hasattr(self, "_labels"):
            return
        path = str(Path(self.root) / "labels.npy")
        (count,) = check_array(path, "integer", (None,), "root")
        labels = np.load(path).astype(np.int64)
        if count % SEVERITIES or labels.min(initial=0) < 0 or labels.max(initial=0) >= self.num_classes:
            raise InputError(
                f"root: {path!r} does not hold {SEVERITIES} times classes of {self.name}, 0 to {self.num_classes - 1}; "
                "check name, or download it again."
            )
        self._labels = labels
        if self.source_root is not None:
            self.source = read_cifar(self.name, self.source_root, True, "source_root")
            self.heldout = read_cifar(self.name, self.source_root, False, "source_root")

    def read(self, name: str, severity: int) -> ImageData:
        """Open the images of a corruption and severity, or the clean ones.

        Args:
            name: Name of the file, or ``clean``.
            severity: 1 to 5; the file's rows come in five equal parts, one per severity.

        Raises:
            InputError: If the file does not hold as many images as there are labels.
        """
        if name == "clean" and self.heldout is not None:
            return self.heldout
        path = str(Path(self.root) / f"{name}.npy")
        check_array(path, "uint8", (len(self._labels), 32, 32, 3), "root")
        size = len(self._labels) // SEVERITIES
        start = (severity - 1) * size
        return StoredRows(path, start, self._labels[start : start + size])


def _corruptions_in(root: str, name: str) -> list[str]:
    path = Path(root)
    names = sorted(file.stem for file in path.glob("*.npy") if file.stem != "labels")
    if not names or not (path / "labels.npy").is_file():
        place = PLACES.get(name, "the address of the data set")
        raise InputError(
            f"root: {root!r} has no labels.npy with corruptions such as fog.npy (looked at {path.resolve()}); download "
            f"and unpack {place}."
        )
    return names
