"""Cells: run folders reduced to what a leaderboard needs of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tta.errors import InputError
from tta.leaderboard.entries import Entry
from tta.leaderboard.image_numbers import Block, Columns, Ints, number_images
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
"""Columns of `predictions.csv` in which the systems of one block agree, beside `domain`."""

NOTHING: FloatArray = np.empty(0)
NO_SAMPLES: Ints = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Cell:
    """One system on one stream with one seed.

    Attributes:
        entry: Which cell this is.
        error: Why it has no run, in one line; empty where it has one.
        correct: 1 where a prediction is right, 0 where it is wrong, NaN where the label is unknown; in the order of the
            stream, shape `(N,)`.
        images: Which image each sample shows, shape `(N,)`; the cells of a block share it.
        domains: Number of the domain of each sample, shape `(N,)`; the cells of a block share it.
        seen: Samples seen up to the end of each batch, shape `(batches,)`.
        window_accuracy: Accuracy in [0, 1] over the window at the end of each batch, NaN where unknown.
        device: What the run ran on.
        values: Figures by name, NaN where unknown.
    """

    entry: Entry
    error: str = ""
    correct: FloatArray = field(default_factory=NOTHING.copy)
    images: Ints = field(default_factory=NO_SAMPLES.copy)
    domains: Ints = field(default_factory=NO_SAMPLES.copy)
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
        InputError: Two systems ran over different samples of the same model, stream and seed, or no run has a metric.
    """
    cells: list[Cell] = []
    blocks: dict[Block, tuple[Entry, Columns]] = {}
    for entry in entries:
        cell, columns = _read_cell(entry, metrics)
        cells.append(cell)
        if cell.correct.size:
            _check_samples(*blocks.setdefault(entry.block, (entry, columns)), entry, columns)
    _check_metrics(cells, metrics)
    images = number_images({block: columns for block, (_, columns) in blocks.items()})
    domains = {block: np.unique(columns["domain"], return_inverse=True)[1] for block, (_, columns) in blocks.items()}
    return tuple(
        dataclasses.replace(cell, images=images[cell.entry.block], domains=domains[cell.entry.block])
        if cell.correct.size
        else cell
        for cell in cells
    )


def _read_cell(entry: Entry, metrics: Sequence[str]) -> tuple[Cell, Columns]:
    if entry.folder is None:
        return Cell(entry, entry.error or "no run"), {}
    try:
        run = read_run(entry.folder)
        columns = {name: _column(run, name) for name in ALIGNED} | {"domain": np.array(run.prediction_domains, str)}
    except InputError as error:
        return Cell(entry, str(error)), {}
    paths = {name: tuple(name.split(".")) for name in metrics} | NUMBERS
    numbers = {name: run.number(*path) for name, path in paths.items()}
    cell = Cell(
        entry,
        correct=_correct(run),
        seen=run.metrics["samples"],
        window_accuracy=run.column("window_accuracy"),
        device=run.text("cost", "device"),
        values={name: np.nan if number is None else number for name, number in numbers.items()},
    )
    return cell, columns


def _column(run: Run, name: str) -> Ints:
    """A column of whole numbers, -1 where the cell is empty."""
    if name not in run.predictions:
        raise InputError(f"'{run.path / 'predictions.csv'}' lacks the column {name}: run `tta adapt` again")
    return np.nan_to_num(run.predictions[name], nan=-1).astype(np.int64)


def _correct(run: Run) -> FloatArray:
    label, prediction = run.predictions["label"], run.predictions["prediction"]
    return np.where(label >= 0, (prediction == label).astype(np.float64), np.nan)


def _check_samples(first: Entry, columns: Columns, second: Entry, others: Columns) -> None:
    """Raise unless two cells of a block cover the same samples."""
    folders = f"'{first.folder}' and '{second.folder}'"
    lengths = len(columns["label"]), len(others["label"])
    if lengths[0] != lengths[1]:
        counts = f"{lengths[0]:,} and {lengths[1]:,} samples"
        raise InputError(f"{folders} cannot be compared: they have {counts}; run both over the same stream")
    for name, one in columns.items():
        differ = np.flatnonzero(one != others[name])
        if differ.size:
            row = differ[0]
            values = f"{one[row]} and {others[name][row]} in row {row + 2:,} of predictions.csv"
            raise InputError(
                f"{folders} cannot be compared: {name} differs ({values}); run both over the same stream and seed"
            )


def _check_metrics(cells: Iterable[Cell], metrics: Sequence[str]) -> None:
    """Raise unless some run has each metric, or all of them leave it open."""
    folders = [cell.entry.folder for cell in cells if cell.finished and cell.entry.folder is not None]
    unknown = [name for name in metrics if folders and all(np.isnan(cell.value(name)) for cell in cells)]
    if not unknown:
        return
    summaries = [json.loads((folder / "summary.json").read_text(encoding="utf-8")) for folder in folders]
    there = sorted({name for summary in summaries for name in _figures(summary)})
    for name in unknown:
        if name not in there:
            raise InputError(f"metrics: no run's summary.json has a figure {name!r}: choose from {', '.join(there)}")


def _figures(summary: Mapping[str, Any], place: str = "") -> list[str]:
    """Names of what may be a number in a summary, with a dot for each object that leads there."""
    names = []
    for name, value in summary.items():
        if isinstance(value, dict) and name != "per_domain":
            names += _figures(value, f"{place}{name}.")
        elif value is None or isinstance(value, (bool, int, float)):
            names.append(f"{place}{name}")
    return names


def page_of(cell: Cell) -> Path | None:
    """The cell's own page; `None` where there is none."""
    page = None if cell.entry.folder is None else cell.entry.folder / "report.html"
    return page if page is not None and cell.finished and page.is_file() else None
