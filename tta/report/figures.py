"""The figures of one run, as plain matplotlib `Figure` objects."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tta.report.classes import draw_classes
from tta.report.estimate_panel import draw_estimates
from tta.report.panels import draw_panels
from tta.report.run import FloatArray, Run
from tta.report.style import (
    ADAPTED,
    BAND,
    BELOW,
    COLLAPSED,
    FONT,
    GRID,
    INK,
    MUTED,
    SMALL,
    SOURCE,
    WIDE,
    draw_line,
    dress,
    flagged_spans,
    legend,
    new_figure,
    percent_axis,
    plain,
    reset_positions,
    samples_axis,
    spans,
)
from tta.report.verdict import percent

MOST_BANDS = 60
MOST_DOMAIN_ROWS = 24
CALIBRATION_BINS = 10
CENTRES = (np.arange(CALIBRATION_BINS) + 0.5) / CALIBRATION_BINS
INCHES_PER_CHARACTER = 0.075
NARROWEST_LABEL = 0.22


def figures(run: Run) -> dict[str, Figure]:
    """Every figure that the run has data for, by name, in page order.

    Without labels there is no `domains` and no `calibration`; without a frozen source model its series are left out.
    Keys: `accuracy`, `estimates`, `domains`, `classes`, the small panels of `tta.report.panels`, `calibration`.
    """
    drawn = {"accuracy": draw_accuracy(run), "estimates": draw_estimates(run)}
    drawn |= {"domains": draw_domains(run), "classes": draw_classes(run)}
    drawn |= draw_panels(run)
    drawn["calibration"] = draw_calibration(run)
    return {name: figure for name, figure in drawn.items() if figure is not None}


def draw_accuracy(run: Run) -> Figure:
    """Window accuracy, adapted and frozen source, over the stream, with domains, resets, collapse and below source.

    Without labels, the agreement of the adapted with the frozen source predictions takes the place of accuracy.
    """
    figure = new_figure(WIDE, 4.9)
    main, events = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [7, 1.6], "hspace": 0.03})
    x = run.metrics["samples"]
    if np.isnan(run.column("window_accuracy")).all():
        draw_line(main, x, run.column("source_agreement"), "agreement with the frozen source model", ADAPTED)
        dress(main, y_label="share of samples")
    else:
        draw_line(main, x, run.column("source_window_accuracy"), "frozen source model", SOURCE, "--")
        draw_line(main, x, run.column("window_accuracy"), plain(run.text("adapter")), ADAPTED)
        dress(main, y_label="window accuracy")
    main.set_ylim(0, 1.02)
    percent_axis(main)
    main.tick_params(labelbottom=False)
    for start, end in flagged_spans(run, "collapsed"):
        main.axvspan(start, end, color=COLLAPSED, alpha=0.10, linewidth=0)
    if main.get_legend_handles_labels()[0]:
        legend(main, 2)
    else:
        main.text(0.5, 0.5, "no labels, no source", transform=main.transAxes, ha="center", color=MUTED, fontsize=FONT)
    _shade_domains(main, run)
    _draw_events(events, run)
    return figure


def _shade_domains(axes: Axes, run: Run) -> None:
    """Bands for the stretches of one domain, named along the top where the names can be read."""
    bands = spans(run.edges, run.domains)
    if len(bands) > MOST_BANDS:
        axes.set_title("domains interleaved", loc="left", color=MUTED, fontsize=SMALL)
        return
    inches = (WIDE - 0.9) / max(run.edges[-1], 1.0)
    names = [plain(str(name), 24) for *_, name in bands]
    widths = [(end - start) * inches for start, end, _ in bands]
    flat = all(width > len(name) * INCHES_PER_CHARACTER for width, name in zip(widths, names, strict=True))
    readable = [flat or width > NARROWEST_LABEL for width in widths]
    if 2 * sum(readable) < len(bands):
        readable = [False] * len(bands)
        axes.set_title(f"{len(bands)} domains in turn", loc="left", color=MUTED, fontsize=SMALL)
    for index, ((start, end, _), name) in enumerate(zip(bands, names, strict=True)):
        if index % 2 == 0 and len(bands) > 1:
            axes.axvspan(start, end, color=BAND, linewidth=0, zorder=-2)
        if readable[index]:
            axes.annotate(
                name,
                ((start + end) / 2, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center" if flat else "left",
                va="bottom",
                rotation=0 if flat else 40,
                rotation_mode="anchor",
                fontsize=SMALL,
                color=MUTED,
            )


def _draw_events(axes: Axes, run: Run) -> None:
    """Three rows under the curve: collapsed, below source, resets."""
    rows = (("collapsed", COLLAPSED, 2), ("below_source", BELOW, 1))
    for column, color, row in rows:
        stretches = [(start, end - start) for start, end in flagged_spans(run, column)]
        axes.broken_barh(stretches, (row + 0.2, 0.6), facecolors=color, linewidth=0)
    resets = reset_positions(run)
    axes.vlines(resets, 0.15, 0.85, color=INK, linewidth=1.6)
    dress(axes)
    axes.grid(visible=False)
    axes.hlines([1, 2, 3], 0, 1, transform=axes.get_yaxis_transform(), color=GRID, linewidth=0.8)
    axes.set_ylim(0, 3)
    axes.set_yticks([2.5, 1.5, 0.5], ["collapsed", "below source", "resets"])
    samples_axis(axes, run.edges[-1])


def draw_domains(run: Run) -> Figure | None:
    """Accuracy per domain, adapted beside frozen source; `None` without labels.

    Above 24 domains only those with the largest difference are drawn.
    """
    rows = domain_rows(run)
    known = [row for row in rows if row[2] is not None]
    if not known:
        return None
    shown = known
    if len(known) > MOST_DOMAIN_ROWS:
        largest = sorted(known, key=lambda row: -abs((row[2] or 0) - (row[3] or 0)))[:MOST_DOMAIN_ROWS]
        shown = [row for row in known if row in largest]
    figure = new_figure(WIDE, 0.9 + 0.42 * len(shown))
    axes = figure.subplots()
    y = np.arange(len(shown))[::-1]
    for values, offset, color, label in (
        ([row[2] for row in shown], 0.19, ADAPTED, plain(run.text("adapter"))),
        ([row[3] for row in shown], -0.19, SOURCE, "frozen source model"),
    ):
        if any(value is not None for value in values):
            widths = np.array([np.nan if value is None else value for value in values])
            bars = axes.barh(y + offset, widths, 0.34, color=color, label=label)
            texts = ["" if value is None else percent(value) for value in values]
            axes.bar_label(bars, texts, padding=4, fontsize=SMALL, color=MUTED)
    dress(axes)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    axes.set_xlim(0, 1.06 * max(max(row[2] or 0, row[3] or 0) for row in shown) + 0.02)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_yticks(y, [plain(row[0]) for row in shown])
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=SMALL, labelcolor=INK)
    return figure


def domain_rows(run: Run) -> list[tuple[str, float | None, float | None, float | None]]:
    """`(name, samples, accuracy, source accuracy)` of each domain, in the order of the summary."""
    return [
        (
            name,
            run.number("per_domain", name, "samples"),
            run.number("per_domain", name, "accuracy"),
            run.number("per_domain", name, "source_accuracy"),
        )
        for name in run.summary.get("per_domain") or {}
    ]


def draw_calibration(run: Run) -> Figure | None:
    """Reliability diagram of the adapted predictions in ten equal bins of confidence; `None` without labels."""
    label, confidence = run.predictions["label"], run.predictions["confidence"]
    known = (label >= 0) & ~np.isnan(confidence)
    if not known.any():
        return None
    hit = run.predictions["prediction"][known] == label[known]
    right, wrong = (_histogram(confidence[known][mask]) for mask in (hit, ~hit))
    total = right + wrong
    accuracy = np.divide(right, total, out=np.full(CALIBRATION_BINS, np.nan), where=total > 0)
    figure = new_figure(WIDE, 3.7)
    reliability, counts = figure.subplots(1, 2, sharex=True, gridspec_kw={"wspace": 0.08})
    reliability.bar(CENTRES, accuracy, 0.092, color=ADAPTED, label="accuracy of the bin")
    reliability.plot([0, 1], [0, 1], "--", color=INK, linewidth=1.3, label="perfectly calibrated")
    reliability.set_ylim(0, 1.02)
    counts.bar(CENTRES, wrong / total.sum(), 0.092, color=COLLAPSED, label="wrong")
    counts.bar(CENTRES, right / total.sum(), 0.092, wrong / total.sum(), color=ADAPTED, label="right")
    for axes, title in ((reliability, "Accuracy in each bin of confidence"), (counts, "Share of samples in each bin")):
        dress(axes, title, x_label="confidence")
        percent_axis(axes)
        axes.set_xlim(0, 1)
        legend(axes)
    return figure


def _histogram(confidence: FloatArray) -> FloatArray:
    """Samples per bin of confidence, shape `(bins,)`."""
    bins = np.clip((confidence * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    return np.bincount(bins, minlength=CALIBRATION_BINS).astype(np.float64)
