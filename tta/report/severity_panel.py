"""How strong each corruption is over the stream."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import StepPatch
from matplotlib.ticker import MaxNLocator

from tta.report.run import FloatArray
from tta.report.shares import LONGEST_NAME, MOST_COLORS, Ints, category_color, counted, legend_beside, run_edges
from tta.report.stream import Stream
from tta.report.style import DASHES, MUTED, SMALL, dress, plain

MOST_STEPS = 600
MOST_LINES = 24


def corruptions(stream: Stream) -> list[str]:
    """Every corruption of the stream, in order of appearance among the conditions."""
    return list(dict.fromkeys(name for parts in stream.severities for name in parts))


def levels(stream: Stream) -> set[float]:
    """Every severity of the stream; images that are shown as they are have severity 0."""
    return {float(severity) for parts in stream.severities for severity in (parts.values() or [0.0])}


def mean_severity(stream: Stream, edges: Ints) -> FloatArray:
    """Mean severity of each corruption over the samples of a bin that show it.

    Args:
        stream: The stream.
        edges: Edges of the bins, shape `(bins + 1,)`, from 0 to `N`.

    Returns:
        Shape `(corruptions, bins)`; NaN where a corruption is not shown.
    """
    counts = counted(stream.condition, edges, len(stream.conditions))
    table = np.array([[parts.get(name, np.nan) for parts in stream.severities] for name in corruptions(stream)])
    shown = (~np.isnan(table)).astype(float) @ counts
    unknown = np.full(shown.shape, np.nan)
    mean: FloatArray = np.divide(np.nan_to_num(table) @ counts, shown, out=unknown, where=shown > 0)
    return mean


def draw_severity(axes: Axes, stream: Stream) -> None:
    """Draw a step line per corruption, exact where conditions change at most 600 times, otherwise the means of bins."""
    edges = run_edges(stream.condition, MOST_STEPS)
    exact = len(edges) == np.count_nonzero(np.diff(stream.condition)) + 2
    dress(axes, y_label="severity" if exact else "mean severity")
    names = corruptions(stream)
    lines: list[StepPatch] = []
    for number, values in enumerate(mean_severity(stream, edges)):
        dash = DASHES[number // MOST_COLORS % len(DASHES)]
        color = category_color(number)
        lines.append(axes.stairs(values, edges, baseline=None, color=color, linestyle=dash, linewidth=1.8))
        lines[-1].set_label(plain(names[number], LONGEST_NAME))
    axes.set_ylim(0, 1.06 * max(levels(stream)))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    _name_lines(axes, stream, lines)


def _name_lines(axes: Axes, stream: Stream, lines: list[StepPatch]) -> None:
    """A legend, unless the domains are the corruptions: they are named above, in the same colours."""
    names = [str(line.get_label()) for line in lines]
    if sorted(corruptions(stream)) == sorted(domain.split(":")[0] for domain in stream.domains):
        return
    if len(lines) <= MOST_LINES:
        legend_beside(axes, lines, names)
    else:
        axes.set_title(f"{len(lines)} corruptions", loc="left", color=MUTED, fontsize=SMALL)
