"""Predictions that an earlier run has recorded, in place of running its model again."""

import csv
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tta.errors import InputError, first_line

COLUMNS = ("position", "index", "domain", "prediction")
WANTED = "give predictions.csv of a finished run of adapter Source over the very same stream"


class RecordedPredictions:
    """The predictions of a run over the very same stream, by position, from its ``predictions.csv``.

    Args:
        path: The file.

    Raises:
        InputError: If it cannot be read, or is not such a file from its first row to its last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._indices, self._domains, self._classes = array("q"), array("q"), array("q")
        self._numbers: dict[str, int] = {}
        try:
            with path.open(encoding="utf-8", newline="") as file:
                self._read(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise InputError(f"cannot read {path} ({reason}): {WANTED}") from error
        self._names = list(self._numbers)

    def _read(self, rows: "csv.DictReader[str]") -> None:
        if lacking := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
            raise InputError(f"{self.path} has no column {lacking[0]!r}: {WANTED}")
        for row in rows:
            whole = None not in row.values()  # a row that is cut off lacks its last values
            numbers = [row[name] for name in ("position", "index", "prediction")]
            if not (whole and all(number.isdecimal() for number in numbers) and int(numbers[0]) == len(self)):
                raise InputError(f"{self.path}, line {rows.line_num}, is torn or in another place: {WANTED}")
            self._indices.append(int(numbers[1]))
            self._domains.append(self._numbers.setdefault(row["domain"], len(self._numbers)))
            self._classes.append(int(numbers[2]))

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._classes)

    def of(self, batch: Mapping[str, Tensor], start: int, domains: Sequence[str]) -> Tensor:
        """The classes predicted for a batch.

        Args:
            batch: ``index`` and ``domain`` (B,) int64.
            start: Position of its first sample in the stream.
            domains: Names of the stream's domains.

        Returns:
            Classes, shape ``(B,)``, int64, on the CPU.

        Raises:
            InputError: If the file ends before the batch does, or is of another stream.
        """
        stream = zip(batch["index"].tolist(), (domains[number] for number in batch["domain"].tolist()), strict=True)
        for position, (index, domain) in enumerate(stream, start=start):
            if position >= len(self):
                raise InputError(
                    f"{self.path} has {len(self)} samples and the stream goes on at position {position}: {WANTED}"
                )
            recorded = self._indices[position], self._names[self._domains[position]]
            if recorded != (index, domain):
                raise InputError(
                    f"{self.path} has index {recorded[0]} of domain {recorded[1]!r} at position {position}, where the "
                    f"stream has index {index} of domain {domain!r}: {WANTED}"
                )
        return torch.tensor(self._classes[start : position + 1])
