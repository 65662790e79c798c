"""Heat maps of the classes over the stream: predicted, frozen source, true."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from tta.report.run import FloatArray, Run
from tta.report.style import MUTED, PERCENT, SMALL, WIDE, alpha_colormap, dress, new_figure, plain, samples_axis

MOST_CLASSES = 20
MOST_BINS = 60
SAMPLES_PER_CELL = 8


def draw_classes(run: Run) -> Figure | None:
    """Heat maps of the class shares over the stream: predicted, frozen source, true labels; `None` if all unknown.

    Above 20 classes, the most predicted ones have a row each and the last row gathers the rest.
    """
    sources = (
        ("prediction", plain(run.text("adapter"))),
        ("source_prediction", "frozen source"),
        ("label", "true labels"),
    )
    columns = {title: run.predictions[name] for name, title in sources if (run.predictions[name] >= 0).any()}
    if not columns:
        return None
    rows, names = _class_rows(run)
    shares = {title: class_shares(values, rows, len(names)) for title, values in columns.items()}
    figure = new_figure(WIDE, 1.2 + 0.21 * max(len(names), 6))
    panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    rest = len(rows) > len(names)
    brightest = max(float(np.nanmax(share[: len(names) - rest])) for share in shares.values())
    norm = PowerNorm(0.7, vmin=0, vmax=max(brightest, min(1.0, 4 / len(names))))
    extent = (0.0, float(run.edges[-1]), len(names) - 0.5, -0.5)
    draw = partial(Axes.imshow, aspect="auto", cmap=alpha_colormap(), norm=norm, interpolation="none", extent=extent)
    for axes, (title, share) in zip(panels, shares.items(), strict=True):
        image = draw(axes, share)
        dress(axes, title)
        axes.grid(visible=False)
        samples_axis(axes, run.edges[-1])
        axes.set_yticks(range(len(names)), names)
    bar = figure.colorbar(image, ax=list(panels), pad=0.01, aspect=30, format=PERCENT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=MUTED, labelsize=SMALL, length=0)
    return figure


def _class_rows(run: Run) -> tuple[np.ndarray, list[str]]:
    """The row of each class, shape `(classes,)`, and the names of the rows."""
    predicted = run.predictions["prediction"]
    largest = max(np.nanmax(values, initial=0) for values in _class_columns(run))
    classes = max(int(run.number("num_classes") or 0), int(largest) + 1)
    names = run.summary.get("class_names") or []
    labels = [plain(str(names[index] if index < len(names) else index), 16) for index in range(classes)]
    if classes <= MOST_CLASSES:
        return np.arange(classes), labels
    counts = np.bincount(predicted[predicted >= 0].astype(int), minlength=classes)
    top = np.argsort(-counts, kind="stable")[: MOST_CLASSES - 1]
    rows = np.full(classes, len(top))
    rows[top] = np.arange(len(top))
    return rows, [*(labels[index] for index in top), f"other {classes - len(top):,}"]


def _class_columns(run: Run) -> list[FloatArray]:
    return [run.predictions[name] for name in ("prediction", "source_prediction", "label")]


def class_shares(values: FloatArray, rows: np.ndarray, height: int) -> FloatArray:
    """The share of each row of classes over the stream.

    Args:
        values: A class per sample, shape `(n,)`; NaN and negative values are unknown and not counted.
        rows: The row of each class, shape `(classes,)`.
        height: Number of rows.

    Returns:
        Shares in [0, 1], shape `(height, bins)` with at most 60 bins; NaN where a bin has no known sample.
    """
    width = min(MOST_BINS, max(1, len(values) // (SAMPLES_PER_CELL * height)))
    known = values >= 0
    bins = np.arange(len(values)) * width // max(len(values), 1)
    counts = np.zeros((height, width))
    np.add.at(counts, (rows[values[known].astype(int)], bins[known]), 1)
    total = counts.sum(axis=0, keepdims=True)
    shares: FloatArray = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    return shares
