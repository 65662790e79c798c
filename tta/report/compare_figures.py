"""Figures over several runs: one overlay per stream, and bars of adapters by streams."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tta.report.run import Run
from tta.report.style import (
    ADAPTED,
    DASHES,
    INK,
    MUTED,
    SERIES,
    SMALL,
    SOURCE,
    WIDE,
    draw_line,
    dress,
    new_figure,
    percent_axis,
    plain,
    samples_axis,
)
from tta.report.verdict import percent

MOST_COLUMNS = 3


@dataclass(frozen=True)
class Group:
    """Runs over the same stream in the same order.

    Attributes:
        stream: Name of the stream.
        order: Name of its order.
        runs: The runs.
        labels: A unique name per run.
    """

    stream: str
    order: str
    runs: tuple[Run, ...]
    labels: tuple[str, ...]

    @property
    def title(self) -> str:
        """Stream and order as one text."""
        return f"{self.stream}, {self.order}"


def draw_overlay(group: Group, colors: dict[str, int]) -> Figure:
    """Window accuracy of every run of a group over its stream, and of one frozen source model.

    Args:
        group: The runs.
        colors: A number per label, so that an adapter keeps its colour and dashes from figure to figure.
    """
    figure = new_figure(WIDE, 4.2)
    axes = figure.subplots()
    dress(axes, y_label="window accuracy")
    measured = [run for run in group.runs if not np.isnan(run.column("source_window_accuracy")).all()]
    for run in measured[:1]:
        values = run.column("source_window_accuracy")
        draw_line(axes, run.metrics["samples"], values, "frozen source model", SOURCE, "--")
    for run, label in zip(group.runs, group.labels, strict=True):
        index = colors[label]
        dash = DASHES[index // len(SERIES) % len(DASHES)]
        values = run.column("window_accuracy")
        draw_line(axes, run.metrics["samples"], values, plain(label, 32), SERIES[index % len(SERIES)], dash)
    axes.set_ylim(0, 1.02)
    percent_axis(axes)
    samples_axis(axes, max(run.edges[-1] for run in group.runs))
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", frameon=False, fontsize=SMALL, labelcolor=INK, handlelength=2.2)
    else:
        axes.text(0.5, 0.5, "no labels, so no accuracy", transform=axes.transAxes, ha="center", color=MUTED)
    return figure


def draw_bars(groups: list[Group]) -> Figure:
    """Online accuracy as bars: a row per adapter, a panel per stream and order, a dashed line for the frozen source."""
    labels = list(dict.fromkeys(label for group in groups for label in group.labels))
    columns = min(MOST_COLUMNS, len(groups))
    rows = -(-len(groups) // columns)
    figure = new_figure(WIDE, rows * (0.8 + 0.36 * len(labels)))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, group in zip(panels, groups, strict=False):
        _draw_group_bars(axes, group, labels)
    for axes in panels[len(groups) :]:
        axes.set_axis_off()
    return figure


def _draw_group_bars(axes: Axes, group: Group, labels: list[str]) -> None:
    accuracy = {label: run.number("accuracy") for run, label in zip(group.runs, group.labels, strict=True)}
    known = {label: value for label, value in accuracy.items() if value is not None}
    rows = [len(labels) - 1 - labels.index(label) for label in known]
    bars = axes.barh(rows, list(known.values()), 0.62, color=ADAPTED)
    axes.bar_label(bars, [percent(value) for value in known.values()], padding=4, fontsize=SMALL, color=MUTED)
    dress(axes, group.title)
    source = next((value for run in group.runs if (value := run.number("source_accuracy")) is not None), None)
    if source is not None:
        axes.axvline(source, color=INK, linewidth=1.2, linestyle="--")
        axes.annotate(
            f"frozen source {percent(source)}",
            (source, 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -5),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=SMALL,
            color=MUTED,
        )
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_xlim(0, 1.12)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.set_yticks(range(len(labels)), [plain(label, 24) for label in reversed(labels)])
