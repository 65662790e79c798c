"""Accuracy over the stream of every task, one line per system."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from tta.leaderboard.board import Leaderboard
from tta.leaderboard.cells import Cell
from tta.leaderboard.colors import Look
from tta.report.run import FloatArray
from tta.report.style import (
    INK,
    SMALL,
    WIDE,
    draw_line,
    dress,
    new_figure,
    percent_axis,
    plain,
    samples_axis,
    thin,
)

MOST_POINTS = 240
"""Points of one line: a page with many tasks stays small."""


def draw_task(board: Leaderboard, task: str, styles: Mapping[str, Look]) -> Figure | None:
    """Window accuracy of every system over the stream of a task, the mean over its seeds; `None` where none is known.

    Args:
        board: The leaderboard.
        task: Model and stream.
        styles: How each system is drawn.
    """
    members: dict[str, list[Cell]] = {}
    for row in board.rows:
        known = [cell for cell in row.cells if cell.entry.task == task and not np.isnan(cell.window_accuracy).all()]
        if known:
            members[row.system] = known
    if not members:
        return None
    figure = new_figure(WIDE, 4.2)
    axes = figure.subplots()
    dress(axes, y_label="window accuracy")
    for system, cells in members.items():
        look = styles[system]
        draw_line(axes, *thin(*mean_curve(cells), MOST_POINTS), plain(system, 32), look.color, look.dash)
    percent_axis(axes)
    samples_axis(axes, max(cell.seen[-1] for cells in members.values() for cell in cells))
    figure.legend(loc="outside right upper", frameon=False, fontsize=SMALL, labelcolor=INK, handlelength=2.2)
    return figure


def mean_curve(cells: Sequence[Cell]) -> tuple[FloatArray, FloatArray]:
    """Window accuracy averaged over seeds.

    Args:
        cells: Cells of one system and task.

    Returns:
        Samples seen at the batch ends of the first cell, and the mean over the seeds there, shape `(batches,)` each;
        NaN where it is unknown in all.
    """
    seen = cells[0].seen
    curves = [np.interp(seen, cell.seen, cell.window_accuracy, right=np.nan) for cell in cells]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice", category=RuntimeWarning)
        return seen, np.nanmean(curves, axis=0)
