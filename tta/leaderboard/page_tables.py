"""The tables of the page: systems, neighbours in the ranking, cells."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from tta.leaderboard.board import Leaderboard, Quantity, Row
from tta.leaderboard.cells import Cell, page_of
from tta.leaderboard.columns import DASH, Column, columns_of, interval_of, text_of
from tta.leaderboard.headline import p_text, significant, verdict
from tta.leaderboard.tables import error_of
from tta.report.render import relative
from tta.report.verdict import SMALLEST_GAIN, count, percent, points

FAMILY_NAMES = {"adapter": "adapter", "source": "frozen source", "views": "frozen views"}
CELL_COLUMNS = (
    ("System", True),
    ("Model", True),
    ("Stream", True),
    ("Seed", True),
    ("Accuracy", False),
    ("Over source", False),
    ("ECE", True),
    ("Collapsed after", True),
    ("Below source at", True),
    ("Forward equivalents", True),
)
"""Headings of the table of cells, and whether sorting starts with the lowest value."""


@dataclass(frozen=True)
class Shown:
    """A cell of a table.

    Attributes:
        text: What is read first.
        key: What it is sorted by, empty where it is unknown.
        details: Small print below, in lines.
        tone: `good`, `neutral`, `warning` or `bad`.
        best: Whether it is the best of its column.
        link: Where the text leads, empty for nowhere.
    """

    text: str
    key: str | float
    details: tuple[str, ...] = ()
    tone: str = "neutral"
    best: bool = False
    link: str = ""


def column_groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Headings over neighbouring columns, and how many columns each spans."""
    return [(name, len(list(group))) for name, group in itertools.groupby(columns, key=lambda column: column.group)]


def system_rows(board: Leaderboard) -> list[list[Shown]]:
    """One row per system: its name, its figures, how many of its cells have a run."""
    columns = columns_of(board)
    best = {column.key: _best(board, column) for column in columns}
    rows = []
    for row in board.rows:
        figures = [_show(row, column, best[column.key]) for column in columns]
        runs = f"{row.finished} of {len(row.cells)}"
        tone = "neutral" if row.finished == len(row.cells) else "warning"
        share = row.finished / len(row.cells)
        rows.append([_name(row, board.coverage(row)), *figures, Shown(runs, share, tone=tone)])
    return rows


def _name(row: Row, coverage: str) -> Shown:
    detail = FAMILY_NAMES[row.family]
    if row.matches and not all(adapter in row.system for adapter in row.matches):
        detail += f" for {', '.join(row.matches)}"
    return Shown(row.system, row.system, tuple(filter(None, (detail, coverage))), "warning" if coverage else "neutral")


def _best(board: Leaderboard, column: Column) -> frozenset[str]:
    """The best systems in a column whose best is worth pointing out, of those that lack none of its tasks."""
    if not column.highlighted:
        return frozenset()
    values = {row.system: row.value(column.key) for row in board.comparable(column.key)}
    if len(set(values.values())) < 2:
        return frozenset()
    best = min(values.values()) if column.low_is_good else max(values.values())
    return frozenset(system for system, value in values.items() if value == best)


def _show(row: Row, column: Column, best: frozenset[str]) -> Shown:
    quantity = row.quantities[column.key]
    known = not np.isnan(quantity.value)
    return Shown(
        text_of(column, quantity),
        quantity.value if known else "",
        _details(row, column, quantity),
        _tone(row, column),
        row.system in best,
    )


def _details(row: Row, column: Column, quantity: Quantity) -> tuple[str, ...]:
    """The interval, and in how many cells the figure is known where that is not all that have a run."""
    partial = not column.of_runs and 0 < quantity.cells < row.finished
    lines = (interval_of(column, quantity), f"{quantity.cells} of {len(row.cells)} runs" if partial else "")
    return tuple(line for line in lines if line)


def _tone(row: Row, column: Column) -> str:
    """Good and bad news: differences beyond their interval, and runs that raised a flag."""
    if column.signed:
        return {"better": "good", "worse": "bad"}.get(verdict(row, column.key), "neutral")
    return "bad" if column.flags and row.value(column.key) > 0 else "neutral"


def neighbour_rows(board: Leaderboard) -> list[tuple[str, ...]]:
    """Neighbours in the consensus: ahead, behind, difference with interval, p, adjusted p, and whether they differ."""
    tests = () if board.ranking is None else board.ranking.neighbours
    return [
        (
            test.better,
            f"{test.worse} (tied)" if test.tied else test.worse,
            DASH if np.isnan(test.low) else f"{points(test.difference)} ({points(test.low)} to {points(test.high)})",
            p_text(test.p).removeprefix("= "),
            p_text(test.adjusted_p).removeprefix("= "),
            "yes" if significant(test) else "no",
        )
        for test in tests
    ]


def cell_rows(board: Leaderboard, folder: Path) -> list[list[Shown]]:
    """One row per cell, in the order given, linked to its own page.

    Args:
        board: The leaderboard.
        folder: The folder of the page, which the links are relative to.
    """
    return [_cell_row(cell, folder) for cell in board.cells]


def _cell_row(cell: Cell, folder: Path) -> list[Shown]:
    entry, page = cell.entry, page_of(cell)
    link = "" if page is None else quote(relative(page, folder))
    gain = cell.value("gain")
    name = Shown(entry.system, entry.system, link=link)
    place = [Shown(entry.model, entry.model), Shown(entry.stream, entry.stream), Shown(str(entry.seed), entry.seed)]
    if not cell.finished:
        failed = Shown("failed", "", tone="bad")
        return [name, *place, failed, *(Shown(DASH, "") for _ in CELL_COLUMNS[len(place) + 2 :])]
    tone = "neutral" if np.isnan(gain) or abs(gain) < SMALLEST_GAIN else "good" if gain > 0 else "bad"
    ece, cost = cell.value("ece"), cell.value("forward_equivalents")
    return [
        name,
        *place,
        Shown(_text(cell.value("accuracy"), percent), _key(cell.value("accuracy"))),
        Shown(_text(gain, points), _key(gain), tone=tone),
        Shown(_text(ece, percent), _key(ece)),
        _flag(cell, "collapsed", "bad"),
        _flag(cell, "below_source", "warning"),
        Shown(_text(cost, lambda value: f"{value:.3g}"), _key(cost)),
    ]


def _flag(cell: Cell, name: str, tone: str) -> Shown:
    """When a flag was raised first; "never" sorts last but before the unknown."""
    raised, at = cell.value(name), cell.value(f"{name}_at")
    if np.isnan(raised):
        return Shown(DASH, "")
    if not raised:
        return Shown("never", 1e18)
    return Shown("yes", 0) if np.isnan(at) else Shown(count(at), at, tone=tone)


def _key(value: float) -> str | float:
    return "" if np.isnan(value) else value


def _text(value: float, write: Callable[[float], str]) -> str:
    return DASH if np.isnan(value) else write(value)


def failures(board: Leaderboard, folder: Path) -> list[tuple[str, str]]:
    """The failed cells: which, and why in one line."""
    return [
        (f"{cell.entry.system} on {cell.entry.task}, seed {cell.entry.seed}", error_of(cell, folder))
        for cell in board.failed
    ]
