"""Shares of classes or domains over a stream, in bins: stacked areas for a few of them, a heat map for many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from numpy.typing import NDArray

from tta.report.run import FloatArray
from tta.report.style import INK, MUTED, PERCENT, SERIES, SMALL, alpha_colormap, percent_axis, plain

Ints: TypeAlias = NDArray[np.int64]

MOST_COLORS = 21
MOST_ROWS = 100
MOST_BINS = 100
SAMPLES_PER_BIN = 50
LONGEST_NAME = 20
ROWS_OF_A_LEGEND = 12


def category_color(number: int) -> str:
    """A colour per category: the seven of the palette, then their light tints, then their dark shades, then again."""
    mixed_with, amount = ((1.0, 0.0), (1.0, 0.55), (0.0, 0.45))[number // len(SERIES) % 3]
    color = np.array(to_rgb(SERIES[number % len(SERIES)]))
    return to_hex(tuple(color + amount * (mixed_with - color)))


def even_edges(samples: int) -> Ints:
    """Edges of equal bins over a stream, at most 100 of at least 50 samples each where there are so many."""
    bins = int(np.clip(samples // SAMPLES_PER_BIN, 1, MOST_BINS))
    return np.arange(bins + 1, dtype=np.int64) * samples // bins


def run_edges(values: Ints, most: int) -> Ints:
    """Edges of the stretches of equal values; equal bins if there would be more than `most` stretches.

    Args:
        values: One value per sample, shape `(N,)`.
        most: Largest number of stretches.
    """
    changes = np.flatnonzero(np.diff(values)) + 1
    if len(changes) >= most:
        return even_edges(len(values))
    return np.concatenate([[0], changes, [len(values)]]).astype(np.int64)


def counted(values: Ints, edges: Ints, height: int) -> Ints:
    """Samples of each category in each bin.

    Args:
        values: Category of each sample in `[0, height)`, shape `(N,)`; negative ones are not counted.
        edges: Edges of the bins, shape `(bins + 1,)`, from 0 to `N`.
        height: Number of categories.

    Returns:
        Counts of shape `(height, bins)`.
    """
    bins = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    known = values >= 0
    cells = values[known] * (len(edges) - 1) + bins[known]
    return np.bincount(cells, minlength=height * (len(edges) - 1)).reshape(height, -1)


def shares(values: Ints, edges: Ints, height: int) -> FloatArray:
    """What `counted` counts as shares in [0, 1] of the samples of the bin that are known; NaN where none is."""
    counts = counted(values, edges, height)
    total = counts.sum(axis=0, keepdims=True)
    share: FloatArray = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return share


def draw_shares(axes: Axes, values: Ints, names: Sequence[str], kind: str, colors: Sequence[str]) -> None:
    """Draw the shares of each category over the stream: stacked areas up to 21 categories, above that a heat map.

    Args:
        axes: Where to draw; its horizontal axis counts samples.
        values: Category of each sample, shape `(N,)`; negative where unknown.
        names: A name per category.
        kind: What a category is, in the singular.
        colors: A colour per category, not used by the heat map.
    """
    edges = even_edges(len(values))
    if len(names) <= MOST_COLORS:
        _stack(axes, shares(values, edges, len(names)), edges, names, colors)
    else:
        _heat_map(axes, values, edges, len(names), kind)


def _stack(axes: Axes, share: FloatArray, edges: Ints, names: Sequence[str], colors: Sequence[str]) -> None:
    tops = np.cumsum(share, axis=0)
    floor = np.zeros(share.shape[1])
    for top, name, color in zip(tops, names, colors, strict=True):
        axes.stairs(top, edges, baseline=floor, fill=True, color=color, label=plain(name, LONGEST_NAME))
        floor = top
    axes.set_ylim(0, 1)
    percent_axis(axes)
    axes.grid(visible=False)
    handles, labels = axes.get_legend_handles_labels()
    legend_beside(axes, handles[::-1], labels[::-1])


def legend_beside(axes: Axes, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Name series to the right of the axes, from top to bottom."""
    axes.legend(
        handles,
        names,
        loc="upper left",
        bbox_to_anchor=(1.005, 1.03),
        ncols=-(-len(names) // ROWS_OF_A_LEGEND),
        frameon=False,
        fontsize=SMALL - 1,
        labelcolor=INK,
        handlelength=1.0,
        handleheight=0.9,
        labelspacing=0.3,
        columnspacing=0.8,
        borderaxespad=0,
    )


def _heat_map(axes: Axes, values: Ints, edges: Ints, height: int, kind: str) -> None:
    """A row per category, or per group of neighbours where there are more than 100."""
    group = -(-height // MOST_ROWS)
    rows = -(-height // group)
    share = shares(np.where(values < 0, values, values // group), edges, rows)
    image = axes.imshow(
        share,
        aspect="auto",
        cmap=alpha_colormap(),
        vmin=0,
        interpolation="none",
        extent=(0.0, float(edges[-1]), rows * group - 0.5, -0.5),
    )
    axes.grid(visible=False)
    axes.set_ylabel(f"{kind} number", color=MUTED)
    inset = axes.inset_axes((1.015, 0.0, 0.012, 1.0))
    bar = axes.figure.colorbar(image, cax=inset, format=PERCENT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=MUTED, labelsize=SMALL - 1, length=0)
    unit = f"share of {group} {kind}{'es' if kind.endswith('s') else 's'}" if group > 1 else f"share of a {kind}"
    bar.set_label(unit, color=MUTED, fontsize=SMALL)
