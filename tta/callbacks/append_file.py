"""A CSV file that only grows, and can be cut back to where a checkpoint saw it."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from tta.errors import InputError, written

GO_ON = "go on with the same command and --ckpt_path last"


class AppendFile:
    """Rows of a CSV file, on disk as soon as they are appended.

    Args:
        path: The file; its folder is made when the first row comes.
        header: Column names.
    """

    def __init__(self, path: Path, header: Sequence[str]) -> None:
        self.path = path
        self.header = list(header)
        self.offset = 0

    def append(self, rows: Iterable[Sequence[object]]) -> None:
        """Write rows, after the header if they are the first, and hand them to the operating system.

        Raises:
            InputError: If they cannot be written, as on a full disk; the file then ends with the rows before.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if self.offset == 0:
            writer.writerow(self.header)
        writer.writerows(rows)
        data = text.getvalue().encode()
        with written(self.path, GO_ON):
            if self.offset == 0:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with self.path.open("r+b" if self.offset else "wb") as file:
                    file.seek(self.offset)
                    file.write(data)
            except OSError:
                with suppress(OSError):
                    os.truncate(self.path, self.offset)
                raise
        self.offset += len(data)

    def sync(self) -> None:
        """Make sure that the rows survive a loss of power."""
        if self.offset:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def cut_back(self, offset: int) -> None:
        """Drop what was written after ``offset`` bytes.

        Raises:
            InputError: If the file is shorter than that or gone.
        """
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < offset:
            raise InputError(f"{self.path} has {size} bytes and the checkpoint saw {offset}: it was changed since")
        if size > offset:
            os.truncate(self.path, offset)
        self.offset = offset
