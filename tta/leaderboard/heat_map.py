"""Where adapting helps and where it harms: gain over the frozen source model, adapters by tasks."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tta.leaderboard.blocks import task_means
from tta.leaderboard.board import Leaderboard
from tta.leaderboard.columns import DASH
from tta.report.run import FloatArray
from tta.report.style import ADAPTED, COLLAPSED, FONT, GRID, INK, MUTED, SMALL, WIDE, dress, new_figure, plain
from tta.report.verdict import points

STRONGEST = 0.6
"""Opacity of the largest gain or loss, at which ink is still read on it, on a light and on a dark page."""

FLAT_NAMES = 9
"""With more columns than this, their names are slanted."""


def draw_heat_map(board: Leaderboard) -> Figure | None:
    """Gain in points, a row per task and a column per adapter, best first, with the mean; `None` where none is known.

    Blue is a gain, orange a loss, the deeper the larger; cells without a run are dashes, and so is the mean over
    tasks of an adapter that lacks one.
    """
    adapters, tasks = board.of_family("adapter"), board.tasks
    columns = [task_means(row.cells, "gain") for row in adapters]
    gains = np.array([[column.get(task, np.nan) for column in columns] for task in tasks]).reshape(len(tasks), -1)
    if np.isnan(gains).all():
        return None
    slanted = len(adapters) > FLAT_NAMES
    figure = new_figure(WIDE, 0.9 + 0.5 * slanted + 0.34 * (len(tasks) + (len(tasks) > 1)))
    axes = figure.subplots()
    dress(axes)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    names = [plain(task, 40) for task in tasks]
    _draw_cells(axes, gains, 0.0, float(np.nanmax(np.abs(gains))))
    if len(tasks) > 1:
        whole = board.comparable("gain")
        means = np.array([[row.value("gain") if row in whole else np.nan for row in adapters]])
        _draw_cells(axes, means, len(tasks) + 0.25, float(np.nanmax(np.abs(gains))))
        axes.axhline(len(tasks) + 0.125, color=GRID, linewidth=1.2)
    middles = [*(np.arange(len(tasks)) + 0.5), *([len(tasks) + 0.75] if len(tasks) > 1 else [])]
    axes.set_yticks(middles, [*names, "mean over tasks"][: len(middles)])
    axes.set_xticks(np.arange(len(adapters)) + 0.5, [plain(row.system, 22) for row in adapters])
    axes.tick_params(axis="x", top=True, labeltop=True, bottom=False, labelbottom=False, labelsize=FONT)
    if slanted:
        axes.tick_params(axis="x", labelrotation=35)
        for label in axes.get_xticklabels():
            label.set(ha="left", rotation_mode="anchor")
    axes.set_xlim(0, len(adapters))
    axes.set_ylim(middles[-1] + 0.5, 0)
    return figure


def _draw_cells(axes: Axes, gains: FloatArray, top: float, largest: float) -> None:
    for (row, column), gain in np.ndenumerate(gains):
        center = (column + 0.5, top + row + 0.5)
        if np.isnan(gain):
            axes.text(*center, DASH, ha="center", va="center", color=MUTED, fontsize=FONT)
            continue
        opacity = STRONGEST * min(1.0, abs(gain) / largest) if largest else 0.0
        color = ADAPTED if gain >= 0 else COLLAPSED
        corner = (column + 0.03, top + row + 0.04)
        axes.add_patch(Rectangle(corner, 0.94, 0.92, facecolor=color, alpha=opacity, linewidth=0))
        axes.text(
            *center, points(gain), ha="center", va="center", color=INK, fontsize=FONT if gains.shape[1] < 15 else SMALL
        )
