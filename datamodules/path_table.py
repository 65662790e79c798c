"""A table of many paths in little memory."""

import os
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from datamodules.array_types import Ints


class PathTable:
    """Paths of many files at some 20 bytes plus the name each: no object per file, so that processes share the memory.

    Attributes:
        folder: Number of every file's folder, int32, shape ``(N,)``.
    """

    folder: NDArray[np.int32]

    def __init__(self, folders: Sequence[str], names: Iterable[Iterable[str]]) -> None:
        """Take the names in.

        Args:
            folders: Paths of the folders.
            names: For each folder, names of its files relative to it.
        """
        self.folders = list(folders)
        text, counts, lengths = bytearray(), [], []
        for group in names:
            encoded = [os.fsencode(name) + b"\0" for name in group]
            text += b"".join(encoded)
            counts.append(len(encoded))
            lengths.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        self._text = bytes(text)
        ends = np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]))
        self._starts: Ints = ends[:-1]
        self.folder = np.repeat(np.arange(len(counts), dtype=np.int32), counts)

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.folder)

    def __getitem__(self, index: int) -> str:
        """Return a path."""
        start = int(self._starts[index])
        name = self._text[start : self._text.index(b"\0", start)]
        return os.path.join(self.folders[self.folder[index]], os.fsdecode(name))

    def keep(self, positions: Ints) -> None:
        """Forget all files but some.

        Args:
            positions: Which ones stay, int64, shape ``(M,)``.
        """
        self._starts, self.folder = self._starts[positions], self.folder[positions]
