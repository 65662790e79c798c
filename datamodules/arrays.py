"""Images that are held as bytes: in memory, or in a file of which only the needed rows are read."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.array_types import Ints
from tta.errors import InputError

Pixels = NDArray[np.uint8]


def to_image(pixels: Pixels) -> Tensor:
    """Convert an image.

    Args:
        pixels: Shape ``(H, W, 3)``.

    Returns:
        float32, shape ``(3, H, W)``, in [0, 1].
    """
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255)


class ByteImages:
    """Images in memory, a byte per value: a quarter of what floats take."""

    def __init__(self, pixels: Pixels, labels: Ints) -> None:
        """Keep the images.

        Args:
            pixels: Shape ``(N, H, W, 3)``.
            labels: Shape ``(N,)``, int64.
        """
        self.pixels = pixels
        self.labels = labels

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image, float32 ``(3, H, W)`` in [0, 1], and its class."""
        return to_image(self.pixels[index]), int(self.labels[index])


class StoredRows:
    """Some consecutive images of a ``.npy`` file, mapped into memory: a row is read when it is asked for."""

    def __init__(self, path: str, start: int, labels: Ints) -> None:
        """Choose the rows.

        Args:
            path: A file of uint8, shape ``(M, H, W, 3)``.
            start: The first row.
            labels: Class of this row and the following ones, int64, shape ``(N,)``.
        """
        self.path = path
        self.start = start
        self.labels = labels
        self._pixels: Pixels | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image, float32 ``(3, H, W)`` in [0, 1], and its class."""
        if self._pixels is None:
            self._pixels = np.load(self.path, mmap_mode="r")
        label = int(self.labels[index])
        return to_image(self._pixels[self.start + index % len(self)]), label

    def __getstate__(self) -> dict[str, object]:
        """Leave the mapped file out: a process that gets a copy maps it itself."""
        return {**self.__dict__, "_pixels": None}


def check_array(path: str, dtype: str, shape: Sequence[int | None], argument: str) -> tuple[int, ...]:
    """Check a ``.npy`` file without reading its content.

    Args:
        path: The file.
        dtype: What it must hold; ``integer`` for any integers.
        shape: What it must have, ``None`` for any length.
        argument: Name of the argument that gave its folder, for the message.

    Returns:
        Its shape.

    Raises:
        InputError: If it is no such file, is cut off, or holds something else.
    """
    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{argument}: {path!r} cannot be read ({reason}); download it again.") from error
    right_type = np.issubdtype(found.dtype, np.integer) if dtype == "integer" else found.dtype == dtype
    right_shape = found.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, found.shape, strict=True)
    )
    if not (right_type and right_shape):
        wanted = ", ".join("N" if length is None else str(length) for length in shape)
        raise InputError(
            f"{argument}: {path!r} holds {found.dtype} of shape {found.shape}, not {dtype} of shape ({wanted}); "
            "download it again."
        )
    return tuple(found.shape)
