"""Reading a run folder: what `tta adapt` wrote, checked and turned into arrays."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tta.errors import InputError

FloatArray: TypeAlias = NDArray[np.float64]

REQUIRED = {
    "metrics.csv": ("step", "samples", "domain"),
    "timing.csv": ("step", "seconds", "samples_per_second"),
    "predictions.csv": ("position", "domain", "label", "prediction", "confidence", "source_prediction"),
}


@dataclass(frozen=True)
class Run:
    """One adapted stream, read back from its folder.

    Attributes:
        path: The run folder.
        summary: The whole of `summary.json`; any number in it may be `None`.
        config: The text of `config.yaml`, unparsed.
        metrics: Columns of `metrics.csv` but `domain`, one value per batch, NaN where the cell is empty.
        domains: The `domain` column of `metrics.csv`, one name per batch.
        predictions: Columns of `predictions.csv` but `domain`, one value per sample, NaN where the cell is empty.
        prediction_domains: The `domain` column of `predictions.csv`, one name per sample.
        timing: Columns of `timing.csv`, one value per batch, NaN where the cell is empty.
    """

    path: Path
    summary: dict[str, Any]
    config: str
    metrics: dict[str, FloatArray]
    domains: tuple[str, ...]
    predictions: dict[str, FloatArray]
    prediction_domains: tuple[str, ...]
    timing: dict[str, FloatArray]

    def number(self, *keys: str) -> float | None:
        """A number of the summary by its path, `None` where it is absent, null or not finite.

        Args:
            keys: The path, such as `("collapse", "collapsed_at")`; true and false read as 1 and 0.
        """
        value = self._value(keys)
        if isinstance(value, (bool, int, float)) and math.isfinite(value):
            return float(value)
        return None

    def text(self, *keys: str) -> str:
        """A value of the summary by its path as text, `unknown` where it is absent or null."""
        value = self._value(keys)
        return "unknown" if value is None else str(value)

    def column(self, name: str) -> FloatArray:
        """A metric of shape `(batches,)`; all NaN where `metrics.csv` has no such column."""
        return self.metrics.get(name, np.full(len(self.domains), np.nan))

    @property
    def edges(self) -> FloatArray:
        """Sample counts at the batch boundaries, shape `(batches + 1,)`, starting at 0."""
        return np.concatenate([[0.0], self.metrics["samples"]])

    def _value(self, keys: tuple[str, ...]) -> Any:  # noqa: ANN401
        value: Any = self.summary
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def read_run(path: str | Path) -> Run:
    """Read a run folder.

    Args:
        path: A folder that `tta adapt` wrote: `metrics.csv`, `timing.csv`, `predictions.csv`, `summary.json` and,
            unless a script ran the trainer, `config.yaml`.

    Raises:
        InputError: The folder or one of its files is missing or cannot be read, a column is missing, a cell is not
            a number, or no batch was recorded.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"no run folder at '{folder}': give the folder that `tta adapt` wrote")
    metrics, domains = _read_table(folder / "metrics.csv")
    if not domains or np.isnan(metrics["samples"]).any():
        problem = "has a row without a sample count" if domains else "holds no batch"
        raise InputError(f"'{folder / 'metrics.csv'}' {problem}: run `tta adapt` again")
    predictions, prediction_domains = _read_table(folder / "predictions.csv")
    return Run(
        path=folder,
        summary=_read_summary(folder / "summary.json"),
        config=_read_text(folder / "config.yaml") if (folder / "config.yaml").exists() else "",
        metrics=metrics,
        domains=domains,
        predictions=predictions,
        prediction_domains=prediction_domains,
        timing=_read_table(folder / "timing.csv")[0],
    )


def _read_text(file: Path) -> str:
    if not file.is_file():
        raise InputError(f"'{file.parent}' has no {file.name}: a run folder is made by `tta adapt`, let it finish")
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read '{file}' ({error}): check it, or run `tta adapt` again") from error


def _read_summary(file: Path) -> dict[str, Any]:
    try:
        summary = json.loads(_read_text(file))
    except json.JSONDecodeError as error:
        raise InputError(f"'{file}' is not JSON ({error}): run `tta adapt` again") from error
    if not isinstance(summary, dict):
        raise InputError(f"'{file}' holds a {type(summary).__name__}, not an object: run `tta adapt` again")
    return summary


def _read_table(file: Path) -> tuple[dict[str, FloatArray], tuple[str, ...]]:
    """The numeric columns of a CSV file, and its `domain` column (empty where there is none)."""
    header, *rows = list(csv.reader(_read_text(file).splitlines(keepends=True))) or [[]]
    missing = [name for name in REQUIRED[file.name] if name not in header]
    if missing:
        raise InputError(f"'{file}' lacks the column(s) {', '.join(missing)}: run `tta adapt` again")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise InputError(f"'{file}' row {line} has {len(row)} cells, not {len(header)}: run `tta adapt` again")
    columns = dict(zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True))
    domains = tuple(columns.pop("domain", ()))
    return {name: _to_floats(cells, name, file) for name, cells in columns.items()}, domains


def _to_floats(cells: tuple[str, ...], name: str, file: Path) -> FloatArray:
    values = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if cell:
            try:
                values[row] = float(cell)
            except ValueError:
                raise InputError(
                    f"'{file}' row {row + 2}, column {name}: {cell[:40]!r} is not a number: run `tta adapt` again"
                ) from None
    return values
