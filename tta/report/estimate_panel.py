"""Label-free estimates of accuracy beside the true one."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from tta.report.run import Run
from tta.report.style import (
    DASHES,
    INK,
    SERIES,
    WIDE,
    draw_line,
    dress,
    legend,
    new_figure,
    percent_axis,
    plain,
    samples_axis,
)
from tta.report.verdict import percent

PREFIX = "window_estimate/"
MOST_ESTIMATES = 7


def draw_estimates(run: Run) -> Figure | None:
    """Means of the estimates over the window, and the window accuracy where labels exist; `None` without estimates.

    The first seven estimates are drawn. Behind each name stands its mean absolute error over windows, if known.
    """
    names = [name for name in run.metrics if name.startswith(PREFIX) and not np.isnan(run.column(name)).all()]
    if not names:
        return None
    figure = new_figure(WIDE, 3.6)
    axes = figure.subplots()
    dress(axes, y_label="share of the window")
    for index, name in enumerate(names[:MOST_ESTIMATES]):
        color, dash = SERIES[index % len(SERIES)], DASHES[1 + index % (len(DASHES) - 1)]
        draw_line(axes, run.metrics["samples"], run.column(name), _label(run, name.removeprefix(PREFIX)), color, dash)
    draw_line(axes, run.metrics["samples"], run.column("window_accuracy"), "window accuracy", INK)
    axes.set_ylim(0, 1.03)
    percent_axis(axes)
    samples_axis(axes, run.edges[-1])
    legend(axes, 2)
    return figure


def _label(run: Run, name: str) -> str:
    error = run.number("estimates", name, "mean_absolute_error")
    words = plain(name.replace("_", " "))
    return words if error is None else f"{words}, off by {percent(error)} on average"
