"""Cells: run folders reduced to what a leaderboard needs of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tta.errors import InputError
from tta.leaderboard.entries import Entry
from tta.report.run import FloatArray, Run, read_run

NUMBERS = {
    "ece": ("ece",),
    "forward_equivalents": ("cost", "forward_equivalents_per_sample"),
    "collapsed": ("collapse", "collapsed"),
    "collapsed_at": ("collapse", "collapsed_at"),
    "below_source": ("collapse", "below_source"),
    "below_source_at": ("collapse", "below_source_at"),
    "seconds": ("cost", "seconds"),
    "samples_per_second": ("cost", "samples_per_second"),
    "peak_memory_mb": ("cost", "peak_memory_mb"),
}
"""Figures of a cell that stand in its `summary.json`, and where."""

ALIGNED = ("position", "index", "label")
"""Columns of `predictions.csv` in which the systems of one block agree."""

NOTHING: FloatArray = np.empty(0)


@dataclass(frozen=True, eq=False)
class Cell:
    """One system on one stream with one seed.

    Attributes:
        entry: Which cell this is.
        error: Why it has no run, in one line; empty where it has one.
        samples: Predictions made, in the order of the stream: columns `position`, `index` and `label`, shape `(N,)`.
        correct: 1 where a prediction is right, 0 where it is wrong, NaN where the label is unknown; shape `(N,)`.
        seen: Samples seen up to the end of each batch, shape `(batches,)`.
        window_accuracy: Accuracy in [0, 1] over the window at the end of each batch, NaN where unknown.
        device: What the run ran on.
        values: Figures by name, NaN where unknown.
    """

    entry: Entry
    error: str = ""
    samples: dict[str, FloatArray] = field(default_factory=dict)
    correct: FloatArray = field(default_factory=NOTHING.copy)
    seen: FloatArray = field(default_factory=NOTHING.copy)
    window_accuracy: FloatArray = field(default_factory=NOTHING.copy)
    device: str = ""
    values: dict[str, float] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether there is a run."""
        return not self.error

    @property
    def labelled(self) -> bool:
        """Whether any of its predictions is known to be right or wrong."""
        return bool((~np.isnan(self.correct)).any())

    def value(self, name: str) -> float:
        """A figure by its name, NaN where it is unknown."""
        return self.values.get(name, np.nan)

    def known(self, **values: float) -> Cell:
        """The same cell with further figures."""
        return dataclasses.replace(self, values=self.values | values)


def read_cells(entries: Sequence[Entry], metrics: Sequence[str]) -> tuple[Cell, ...]:
    """Read the run folders of all cells.

    Args:
        entries: The cells.
        metrics: Further figures of `summary.json` to read, by name; a dot leads into an object.

    Returns:
        One cell per entry, in order. A folder that cannot be read makes a failed cell.

    Raises:
        InputError: Two systems ran over different samples of the same model, stream and seed.
    """
    cells = tuple(_read_cell(entry, metrics) for entry in entries)
    blocks: dict[tuple[str, str, int], Cell] = {}
    for cell in cells:
        if cell.correct.size:
            _check_samples(blocks.setdefault(cell.entry.block, cell), cell)
    return cells


def _read_cell(entry: Entry, metrics: Sequence[str]) -> Cell:
    if entry.folder is None:
        return Cell(entry, entry.error or "no run")
    try:
        run = read_run(entry.folder)
        samples = {name: _column(run, name) for name in ALIGNED}
    except InputError as error:
        return Cell(entry, str(error))
    paths = {name: tuple(name.split(".")) for name in metrics} | NUMBERS
    numbers = {name: run.number(*path) for name, path in paths.items()}
    return Cell(
        entry,
        samples=samples,
        correct=_correct(run),
        seen=run.metrics["samples"],
        window_accuracy=run.column("window_accuracy"),
        device=run.text("cost", "device"),
        values={name: np.nan if number is None else number for name, number in numbers.items()},
    )


def _column(run: Run, name: str) -> FloatArray:
    if name not in run.predictions:
        raise InputError(f"'{run.path / 'predictions.csv'}' lacks the column {name}: run `tta adapt` again")
    return run.predictions[name]


def _correct(run: Run) -> FloatArray:
    label, prediction = run.predictions["label"], run.predictions["prediction"]
    return np.where(label >= 0, (prediction == label).astype(np.float64), np.nan)


def _check_samples(first: Cell, second: Cell) -> None:
    """Raise unless two cells of a block cover the same samples."""
    folders = f"'{first.entry.folder}' and '{second.entry.folder}'"
    if len(first.correct) != len(second.correct):
        counts = f"{len(first.correct):,} and {len(second.correct):,} samples"
        raise InputError(f"{folders} cannot be compared: they have {counts}; run both over the same stream")
    for name in ALIGNED:
        one, other = first.samples[name], second.samples[name]
        differ = np.flatnonzero((one != other) & ~(np.isnan(one) & np.isnan(other)))
        if differ.size:
            row = differ[0]
            values = f"{one[row]:g} and {other[row]:g} in row {row + 2:,} of predictions.csv"
            raise InputError(
                f"{folders} cannot be compared: {name} differs ({values}); run both over the same stream and seed"
            )


def images(cell: Cell) -> NDArray[np.int64]:
    """Which image of the data set each sample is, shape `(N,)`."""
    return cell.samples["index"].astype(np.int64)


def page_of(cell: Cell) -> Path | None:
    """The cell's own page; `None` where there is none."""
    page = None if cell.entry.folder is None else cell.entry.folder / "report.html"
    return page if page is not None and cell.finished and page.is_file() else None
