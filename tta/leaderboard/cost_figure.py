"""Accuracy against cost: which systems are worth what they take, beside frozen models at the same cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from tta.leaderboard.blocks import largest_budget
from tta.leaderboard.board import Leaderboard, Row
from tta.leaderboard.colors import Look, looks
from tta.ranking import anytime_area, pareto_set
from tta.report.run import FloatArray
from tta.report.style import INK, SMALL, SOURCE, WIDE, dress, new_figure, percent_axis, plain

TICKS = tuple(digit * 10**power for power in range(5) for digit in (1, 2, 3, 5))
MARGIN = 1.25
"""Room on the axis of cost beside the cheapest and the dearest system, as a factor."""


def priced(board: Leaderboard) -> tuple[Row, ...]:
    """The systems of which the accuracy on all tasks and the cost are known, best first."""
    return tuple(row for row in board.comparable() if row.value("forward_equivalents") > 0)


def figures_of(rows: Sequence[Row]) -> tuple[FloatArray, FloatArray]:
    """Cost in forward passes per sample and accuracy in [0, 1] of some systems, shape `(rows,)` each."""
    names = ("forward_equivalents", "accuracy")
    cost, accuracy = (np.array([row.value(name) for row in rows]) for name in names)
    return cost, accuracy


def pareto(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The systems that no other one matches at a lower cost, cheapest first."""
    if not rows:
        return ()
    kept = [row for row, best in zip(rows, pareto_set(*figures_of(rows)), strict=True) if best]
    return tuple(sorted(kept, key=lambda row: row.value("forward_equivalents")))


def family_area(board: Leaderboard, family: str) -> float | None:
    """Mean accuracy over budgets that buy the source model or the best affordable system of one family.

    Budgets are log-uniform from 1 to twice the cost of the dearest system; `None` where there is nothing to buy.
    """
    rows = priced(board)
    bought = [row for row in rows if row.family in ("source", family)]
    if len({row.family for row in bought}) < 2:
        return None
    return float(anytime_area(*figures_of(bought), 1.0, largest_budget(figures_of(rows)[0].tolist())))


def draw_cost(board: Leaderboard) -> Figure | None:
    """Mean accuracy against forward-equivalents per sample; `None` where no cost is known."""
    rows = priced(board)
    if not rows:
        return None
    figure = new_figure(WIDE, 4.6)
    axes = figure.subplots()
    dress(axes, x_label="forward-equivalents per sample", y_label="mean accuracy")
    percent_axis(axes)
    cost = figures_of(rows)[0]
    axes.set_xscale("log")
    axes.set_xlim(min(1.0, float(cost.min())) / MARGIN, max(2.0, float(cost.max())) * MARGIN)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if tick <= axes.get_xlim()[1]]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    _draw_staircase(axes, pareto(rows))
    _draw_frozen(axes, [row for row in rows if row.family != "adapter"])
    styles = looks(board)
    for row in rows:
        if row.family != "views":
            _draw_point(axes, row, styles[row.system])
    figure.legend(loc="outside right upper", frameon=False, fontsize=SMALL, labelcolor=INK, handlelength=2.2)
    return figure


def _draw_staircase(axes: Axes, best: Sequence[Row]) -> None:
    cost, accuracy = figures_of(best)
    edge = axes.get_xlim()[1]
    x, y = np.append(cost, edge), np.append(accuracy, accuracy[-1])
    axes.plot(x, y, color=INK, linewidth=1.1, drawstyle="steps-post", label="Pareto set", zorder=1)


def _draw_frozen(axes: Axes, rows: Sequence[Row]) -> None:
    """Frozen views as a line from the source model on."""
    if not any(row.family == "views" for row in rows):
        return
    ordered = sorted(rows, key=lambda row: row.value("forward_equivalents"))
    cost, accuracy = figures_of(ordered)
    axes.plot(cost, accuracy, ":", color=SOURCE, linewidth=1.8, zorder=2)
    views = [row for row in ordered if row.family == "views"]
    axes.plot(
        *figures_of(views), "D", color=SOURCE, markersize=6, markerfacecolor="none", label="frozen views", zorder=3
    )


def _draw_point(axes: Axes, row: Row, look: Look) -> None:
    accuracy = row.quantities["accuracy"]
    cost = row.value("forward_equivalents")
    if not np.isnan(accuracy.low):
        axes.vlines(cost, accuracy.low, accuracy.high, color=look.color, linewidth=1.4, alpha=0.55, zorder=2)
    axes.plot(
        [cost],
        [accuracy.value],
        look.marker,
        color=look.color,
        markersize=8,
        label=plain(row.system, 30),
        zorder=4,
    )
