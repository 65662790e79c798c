"""The picture of a stream: domains, severities, class mix and sample images over one horizontal axis."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tta.report.domain_panel import draw_domains, has_bands
from tta.report.severity_panel import draw_severity, levels
from tta.report.shares import category_color, draw_shares
from tta.report.stream import Stream
from tta.report.style import FONT, INK, MUTED, SMALL, WIDE, dress, new_figure, plain, samples_axis

TITLE_CHARACTERS = 105
CAPTION_CHARACTERS = 15
CAPTION_LINES = 6
SHARPEST = 64
"""Side in pixels up to which an image is enlarged without smoothing."""


def draw_stream(stream: Stream) -> Figure:
    """Draw a stream of any length: its samples are counted in bins, never drawn one by one.

    The axes are labelled `domains`, `severity` (left out where it never changes), `classes` (left out where no label
    is known) and `images`.
    """
    heights = _heights(stream)
    figure = new_figure(WIDE, sum(heights.values()) + 1.7)
    panels = figure.subplots(len(heights), 1, gridspec_kw={"height_ratios": list(heights.values())})
    draw = {"domains": draw_domains, "severity": draw_severity, "classes": _draw_classes, "images": _draw_images}
    for axes, name in zip(panels, heights, strict=True):
        axes.set_label(name)
        draw[name](axes, stream)
        axes.set_xlim(0, len(stream))
    for axes in panels[:-2]:
        axes.spines["bottom"].set_visible(False)
        axes.set_xticks([])
    samples_axis(panels[-2], len(stream))
    panels[-2].set_xlabel("position in the stream, in samples", color=MUTED, fontsize=FONT)
    title, facts = _title(stream), _facts(stream)
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=FONT + 1.5, fontweight="bold")
    figure.supxlabel(facts, x=0.01, ha="left", color=MUTED, fontsize=FONT)
    return figure


def _heights(stream: Stream) -> dict[str, float]:
    """Inches of each panel that is drawn, from top to bottom."""
    heights = {"domains": 0.4 if has_bands(stream) else 2.1}
    if len(levels(stream)) > 1:
        heights["severity"] = 2.0
    if (stream.label >= 0).any():
        heights["classes"] = 2.2
    return heights | {"images": 0.9}


def _title(stream: Stream) -> str:
    joint = "\u00a0\u00a0·  "  # no line begins with the point
    parts = (stream.covariate, stream.labels, f"order\u00a0{stream.order}", f"boundaries\u00a0{stream.boundaries}")
    text = f"{stream.name}:  {joint.join(parts)}"
    return "\n".join(plain(line, TITLE_CHARACTERS) for line in textwrap.wrap(text, TITLE_CHARACTERS, max_lines=4))


def _facts(stream: Stream) -> str:
    batches = len(stream.starts) - 1
    cut = f"{batches:,} batch{'es' if batches > 1 else ''}"
    facts = [f"{len(stream):,} samples in {cut}", f"batch_size {stream.batch_size}", f"seed {stream.seed}"]
    found = levels(stream)
    if found == {0.0}:
        facts.append("no corruption, images as they are")
    elif len(found) == 1:
        facts.append(f"severity {found.pop():g} throughout")
    if not (stream.label >= 0).any():
        facts.append("no label is known")
    return "  ·  ".join(facts)


def _draw_classes(axes: Axes, stream: Stream) -> None:
    dress(axes, y_label="share of each class")
    colors = [category_color(number) for number in range(len(stream.class_names))]
    draw_shares(axes, stream.label, stream.class_names, "class", colors)


def _draw_images(axes: Axes, stream: Stream) -> None:
    """Each image under its place on the axis above, with its class and its condition."""
    axes.set_axis_off()
    width = 1 / max(len(stream.shown), 4)
    for position, image in zip(stream.shown, stream.images, strict=True):
        middle = (position + 0.5) / len(stream)
        inset = axes.inset_axes((middle - 0.46 * width, 0.0, 0.92 * width, 1.0))
        inset.set_anchor("N")
        inset.set_axis_off()
        smoothing = "nearest" if max(image.shape[:2]) <= SHARPEST else "antialiased"
        inset.imshow(_drawable(image), interpolation=smoothing)
        label = int(stream.label[position])
        name = "unknown class" if label < 0 else stream.class_names[label]
        caption = _caption(name, stream.conditions[stream.condition[position]])
        inset.annotate(
            caption,
            (0.5, 0),
            xycoords="axes fraction",
            xytext=(0, -4),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=SMALL - 1.5,
            color=MUTED,
            linespacing=1.25,
        )


def _drawable(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image with three channels."""
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def _caption(name: str, condition: str) -> str:
    """Class and condition in short lines, which break after underscores and colons and before a further corruption."""
    lines = [plain(name, CAPTION_CHARACTERS)]
    for part in condition.split("+"):
        broken = textwrap.wrap(part.replace("_", "_ ").replace(":", ": "), CAPTION_CHARACTERS)
        lines += [line.replace("_ ", "_").replace(": ", ":") for line in broken]
    kept = lines if len(lines) <= CAPTION_LINES else [*lines[: CAPTION_LINES - 1], "…"]
    return "\n".join(plain(line, CAPTION_CHARACTERS) for line in kept)
