"""Ranks of the systems under every method, with their intervals."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tta.leaderboard.board import METHODS
from tta.ranking import Ranking
from tta.report.style import BAND, INK, SERIES, SMALL, WIDE, dress, new_figure, plain

NAMES = {"mean": "mean accuracy", "borda": "Borda", "kemeny": "Kemeny (consensus)", "plackett_luce": "Plackett-Luce"}
MARKERS = ("o", "s", "D", "^")
SPREAD = 0.17
"""Distance of the methods within the row of a system, whose height is 1."""


def draw_ranks(ranking: Ranking) -> Figure:
    """A row per system, in the consensus order, with a dot and a 95 % interval of its rank per method."""
    count = len(ranking.consensus)
    figure = new_figure(WIDE, 0.9 + 0.62 * count)
    axes = figure.subplots()
    dress(axes, x_label="rank")
    places = np.array([ranking.consensus.index(system) for system in ranking.systems])
    for row in range(0, count, 2):
        axes.axhspan(row - 0.5, row + 0.5, color=BAND, linewidth=0, zorder=-2)
    for index, method in enumerate(METHODS):
        standings = ranking.methods[method]
        y = places + SPREAD * (index - 1.5)
        axes.hlines(
            y,
            [standing.rank_low for standing in standings],
            [standing.rank_high for standing in standings],
            color=SERIES[index],
            linewidth=2.0,
            alpha=0.6,
        )
        ranks = [standing.rank for standing in standings]
        axes.plot(ranks, y, MARKERS[index], color=SERIES[index], markersize=5.5, label=NAMES[method])
    axes.grid(visible=False)
    axes.set_xlim(0.6, count + 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(min(count, 20), integer=True, min_n_ticks=1))
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_yticks(range(count), [plain(system, 30) for system in ranking.consensus])
    figure.legend(loc="outside right upper", frameon=False, fontsize=SMALL, labelcolor=INK, handlelength=1.2)
    return figure
