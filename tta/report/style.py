"""The look of the figures: one palette, plain axes, and the helpers that keep long streams drawable."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tta.report.run import FloatArray, Run

INK = "#1c2430"
MUTED = "#586474"
GRID = "#e1e6ec"
BAND = "#eef2f6"
ADAPTED = "#0072b2"
SOURCE = "#7b8694"
COLLAPSED = "#d55e00"
BELOW = "#a8488f"
SERIES = (ADAPTED, COLLAPSED, "#009e73", BELOW, "#c98a00", "#3f9bd8", "#6b4fa0")
DASHES = ("-", "--", ":", "-.")

WIDE = 11.0
NARROW = 5.3
FONT = 9.5
SMALL = 8.5
MOST_POINTS = 600
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.3g} %")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure with its own canvas, free of pyplot's global state.

    Args:
        width: Inches.
        height: Inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, title: str = "", x_label: str = "", y_label: str = "") -> None:
    """Give axes the house look: horizontal hairlines, no box, muted tick labels."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.tick_params(colors=MUTED, labelsize=SMALL, length=0, pad=4)
    axes.set_title(plain(title, 60), loc="left", color=INK, fontsize=FONT + 0.5, fontweight="bold", pad=8)
    axes.set_xlabel(x_label, color=MUTED, fontsize=FONT)
    axes.set_ylabel(y_label, color=MUTED, fontsize=FONT)


def samples_axis(axes: Axes, last: float) -> None:
    """Make the horizontal axis count the samples seen, from 0 to `last`."""
    axes.set_xlim(0, max(last, 1))
    axes.set_xlabel("samples seen", color=MUTED, fontsize=FONT)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=2))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def percent_axis(axes: Axes) -> None:
    """Write the vertical axis, in [0, 1], as percentages."""
    axes.yaxis.set_major_formatter(PERCENT)


def number_axis(axes: Axes) -> None:
    """Write the vertical axis in plain numbers, without a factor set apart."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def legend(axes: Axes, columns: int = 1) -> None:
    """Name the series above the axes' content, without a frame."""
    axes.legend(
        loc="best", frameon=False, fontsize=SMALL, labelcolor=INK, ncols=columns, handlelength=1.8, borderaxespad=0.2
    )


def plain(text: str, longest: int = 28) -> str:
    """Text that matplotlib draws literally: one line, no mathematics, at most `longest` characters."""
    line = "".join(character if character.isprintable() else " " for character in text)
    if len(line) > longest:
        line = line[: longest - 1] + "…"
    return line.replace("$", r"\$")


def alpha_colormap() -> ListedColormap:
    """From transparent to blue, so that a heat map sits on a light and on a dark page."""
    steps = np.linspace(0.0, 1.0, 256)
    return ListedColormap(np.column_stack([0 * steps + 0.07, 0 * steps + 0.5, 0 * steps + 0.83, 0.03 + 0.97 * steps]))


def thin(x: FloatArray, y: FloatArray, most: int = MOST_POINTS) -> tuple[FloatArray, FloatArray]:
    """Drop points that a figure cannot show, keeping each stretch's lowest and highest.

    Args:
        x: Positions, shape `(n,)`.
        y: Values, shape `(n,)`; NaN values are dropped when thinning.
        most: Largest number of points to return.
    """
    if len(x) <= most:
        return x, y
    kept: list[int] = []
    for block in np.array_split(np.flatnonzero(~np.isnan(y)), most // 2):
        if len(block):
            kept += sorted({int(block[np.argmin(y[block])]), int(block[np.argmax(y[block])])})
    return x[kept], y[kept]


def draw_line(axes: Axes, x: FloatArray, y: FloatArray, label: str, color: str, dash: str = "-") -> None:
    """Draw a thinned line, with markers where there are too few points to see one; nothing if all is NaN."""
    if np.isnan(y).all():
        return
    x, y = thin(x, y)
    marker = "o" if np.count_nonzero(~np.isnan(y)) < 4 else ""
    axes.plot(x, y, dash, color=color, linewidth=1.8, marker=marker, markersize=5, label=label, clip_on=not marker)


def spans(edges: FloatArray, flags: Iterable[object]) -> list[tuple[float, float, object]]:
    """Merge equal neighbours into stretches.

    Args:
        edges: Batch boundaries in samples, shape `(n + 1,)`.
        flags: One value per batch, `n` in all.

    Returns:
        `(start, end, value)` per stretch, in order.
    """
    merged: list[tuple[float, float, object]] = []
    for start, end, flag in zip(edges[:-1], edges[1:], flags, strict=True):
        if merged and merged[-1][2] == flag:
            merged[-1] = (merged[-1][0], float(end), flag)
        else:
            merged.append((float(start), float(end), flag))
    return merged


def flagged_spans(run: Run, column: str) -> list[tuple[float, float]]:
    """The stretches `(start, end)` of samples over which a 0/1 column is 1."""
    return [(start, end) for start, end, on in spans(run.edges, run.column(column) == 1) if on]


def reset_positions(run: Run) -> FloatArray:
    """Sample counts at which the model was reset, at most one per 500th of the stream."""
    counts = np.nan_to_num(run.column("resets"))
    at = run.metrics["samples"][np.diff(counts, prepend=0.0) > 0]
    grain = max(run.edges[-1] / 500, 1.0)
    positions: FloatArray = np.unique(np.round(at / grain)) * grain
    return positions
