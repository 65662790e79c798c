"""The small panels of a run: one line chart per diagnostic and per cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tta.report.run import FloatArray, Run
from tta.report.style import (
    ADAPTED,
    COLLAPSED,
    INK,
    NARROW,
    SOURCE,
    draw_line,
    dress,
    flagged_spans,
    legend,
    new_figure,
    number_axis,
    percent_axis,
    reset_positions,
    samples_axis,
)

MOST_SCALARS = 8
LOG_RANGE = 50.0


@dataclass(frozen=True)
class Panel:
    """A small line chart: metric columns against samples seen.

    Attributes:
        title: Printed above the chart.
        series: `(column, label)` of the adapted model's lines and, dashed and grey, of what they compare with.
        percent: Whether the values are shares in [0, 1].
        log: Whether to use a logarithmic scale when the values span more than a factor of 50.
    """

    title: str
    series: tuple[tuple[str, str], ...]
    percent: bool = False
    log: bool = False


PANELS = {
    "effective_classes": Panel(
        "Effective classes in the window",
        (("effective_classes", "adapted"), ("source_effective_classes", "frozen source")),
    ),
    "top_class": Panel(
        "Share of the most predicted class",
        (("top_class_share", "adapted"), ("source_top_class_share", "frozen source")),
        percent=True,
    ),
    "entropy": Panel(
        "Marginal entropy (1 = all classes alike)",
        (("marginal_entropy", "window"), ("batch_marginal_entropy", "batch")),
    ),
    "agreement": Panel(
        "Agreement with the frozen source model", (("source_agreement", "same prediction"),), percent=True
    ),
    "drift": Panel("Parameter drift (relative L2)", (("parameter_drift", "drift"),)),
    "gradient": Panel("Gradient norm", (("gradient_norm", "norm"),), log=True),
    "reliable": Panel("Reliable samples in the batch", (("reliable_share", "share"),), percent=True),
    "loss": Panel("Adaptation loss", (("loss", "loss"),)),
}
COST_PANELS = ("work", "speed", "memory")


def draw_panels(run: Run) -> dict[str, Figure]:
    """One figure per diagnostic that the run recorded, then `adapter` and the cost panels, by name."""
    drawn = {name: _draw_panel(run, panel) for name, panel in PANELS.items()}
    drawn |= {"adapter": _draw_adapter(run), "work": _draw_work(run)}
    drawn["speed"] = _draw_timing(run, "samples_per_second", "Samples per second")
    drawn["memory"] = _draw_timing(run, "peak_memory_mb", "Peak memory (MB)")
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _draw_panel(run: Run, panel: Panel) -> Figure | None:
    known = [(column, label) for column, label in panel.series if not np.isnan(run.column(column)).all()]
    if not known:
        return None
    figure = new_figure(NARROW, 2.7)
    axes = figure.subplots()
    dress(axes, panel.title)
    for column, label in reversed(known):
        first = column == panel.series[0][0]
        draw_line(
            axes,
            run.metrics["samples"],
            run.column(column),
            label,
            ADAPTED if first else SOURCE,
            "-" if first else "--",
        )
    if len(panel.series) > 1:
        legend(axes)
    _set_scale(axes, run, panel, [run.column(column) for column, _ in known])
    _mark_events(axes, run)
    return figure


def _set_scale(axes: Axes, run: Run, panel: Panel, columns: list[FloatArray]) -> None:
    values = np.concatenate(columns)
    values = values[np.isfinite(values)]
    if panel.percent:
        axes.set_ylim(0, 1.03)
        percent_axis(axes)
    elif panel.log and values.size and values.min() > 0 and values.max() / values.min() > LOG_RANGE:
        axes.set_yscale("log")
        axes.minorticks_off()
        number_axis(axes)
    else:
        number_axis(axes)
        if values.size and values.min() >= 0:
            axes.set_ylim(0, 1.1 * values.max() or 1.0)
    samples_axis(axes, run.edges[-1])


def _mark_events(axes: Axes, run: Run) -> None:
    """Tint the collapsed stretches and put a tick at the foot of the chart for each reset."""
    for start, end in flagged_spans(run, "collapsed"):
        axes.axvspan(start, end, color=COLLAPSED, alpha=0.10, linewidth=0)
    axes.vlines(reset_positions(run), 0, 0.07, transform=axes.get_xaxis_transform(), color=INK, linewidth=1.6)


def _draw_adapter(run: Run) -> Figure | None:
    """Small multiples of the columns that the method itself logged; at most eight."""
    names = [name for name in run.metrics if name.startswith("adapter/") and not np.isnan(run.column(name)).all()]
    names = names[:MOST_SCALARS]
    if not names:
        return None
    figure = new_figure(NARROW, 0.6 + 2.1 * len(names))
    for axes, name in zip(np.ravel(figure.subplots(len(names), 1, sharex=True)), names, strict=True):
        dress(axes, name.removeprefix("adapter/"))
        draw_line(axes, run.metrics["samples"], run.column(name), name, ADAPTED)
        number_axis(axes)
        samples_axis(axes, run.edges[-1])
        axes.set_xlabel("samples seen" if name == names[-1] else "")
        _mark_events(axes, run)
    return figure


def _draw_work(run: Run) -> Figure | None:
    """Cumulative forward and backward passes, counted in samples."""
    forwards, backwards = run.column("forwards"), run.column("backwards")
    if np.isnan(forwards).all() and np.isnan(backwards).all():
        return None
    figure = new_figure(NARROW, 2.7)
    axes = figure.subplots()
    dress(axes, "Samples passed through the model")
    draw_line(axes, run.metrics["samples"], forwards, "forward", ADAPTED)
    draw_line(axes, run.metrics["samples"], backwards, "backward", COLLAPSED, "--")
    legend(axes)
    axes.set_ylim(0, max(1.0, 1.08 * float(np.nanmax([forwards, backwards]))))
    number_axis(axes)
    samples_axis(axes, run.edges[-1])
    return figure


def _draw_timing(run: Run, column: str, title: str) -> Figure | None:
    values = run.timing.get(column, np.empty(0))
    if np.isnan(values).all():
        return None
    samples = np.interp(run.timing["step"], run.metrics["step"], run.metrics["samples"])
    figure = new_figure(NARROW, 2.7)
    axes = figure.subplots()
    dress(axes, title)
    draw_line(axes, samples, values, title, ADAPTED)
    axes.set_ylim(0, 1.15 * np.nanmax(values) + 1e-9)
    number_axis(axes)
    samples_axis(axes, run.edges[-1])
    return figure
