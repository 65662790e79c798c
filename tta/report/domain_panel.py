"""Which domain is shown when: a band, or the shares of domains that are shown together."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from tta.report.run import FloatArray
from tta.report.severity_panel import corruptions
from tta.report.shares import MOST_COLORS, Ints, category_color, draw_shares
from tta.report.stream import Stream
from tta.report.style import INK, MUTED, SMALL, dress, plain

MOST_BANDS = 300
MOST_GAPS = 60
PANEL = 8.0
"""Inches of a panel's width that a legend leaves at least."""
INCHES_PER_CHARACTER = 0.072
NARROWEST_LABEL = 0.17
LEGEND_COLUMNS = 6
NEUTRAL = ("#c9d1da", "#e1e6ec")


def has_bands(stream: Stream) -> bool:
    """Whether each domain is shown in stretches that are few enough to draw."""
    return int(np.count_nonzero(np.diff(stream.domain))) < MOST_BANDS


def draw_domains(axes: Axes, stream: Stream) -> None:
    """Draw the domains over the stream; a domain that is one corruption has the colour of its severity."""
    if has_bands(stream):
        _draw_bands(axes, stream)
        return
    dress(axes, y_label="share of each domain")
    draw_shares(axes, stream.domain, stream.domains, "domain", _share_colors(stream))


def _share_colors(stream: Stream) -> list[str]:
    kinds = corruptions(stream)
    numbers = [_corruption(name, kinds) for name in stream.domains]
    known = [number for number in numbers if number is not None]
    if len(set(known)) < len(known):
        return [category_color(number) for number in range(len(numbers))]
    others = itertools.count(len(kinds))
    return [category_color(next(others) if number is None else number) for number in numbers]


def _corruption(domain: str, kinds: list[str]) -> int | None:
    name = domain.split(":")[0]
    return kinds.index(name) if name in kinds else None


def _band_color(number: int, stream: Stream, kinds: list[str]) -> str:
    if not kinds:
        return category_color(number)
    corruption = _corruption(stream.domains[number], kinds)
    return NEUTRAL[number % 2] if corruption is None else category_color(corruption)


def _draw_bands(axes: Axes, stream: Stream) -> None:
    dress(axes)
    axes.grid(visible=False)
    axes.set_yticks([])
    axes.set_ylim(0, 1)
    axes.set_ylabel("domain", color=MUTED, rotation=0, ha="right", va="center")
    changes = np.flatnonzero(np.diff(stream.domain)) + 1
    edges = np.concatenate([[0], changes, [len(stream)]])
    shown = stream.domain[edges[:-1]]
    kinds = corruptions(stream)
    colors = [_band_color(int(number), stream, kinds) for number in shown]
    gap = 0.8 if len(shown) <= MOST_GAPS else 0.0
    for (start, end), color in zip(itertools.pairwise(edges.tolist()), colors, strict=True):
        axes.axvspan(start, end, facecolor=color, edgecolor="white", linewidth=gap)
    _name_bands(axes, stream, edges, shown, colors)


def _name_bands(axes: Axes, stream: Stream, edges: Ints, shown: Ints, colors: list[str]) -> None:
    """Names inside the bands if all fit, else slanted above them, else in a legend, else only their number."""
    names = [plain(stream.domains[number], 28) for number in shown]
    widths: FloatArray = np.diff(edges) * PANEL / len(stream)
    middles = ((edges[:-1] + edges[1:]) / 2).tolist()
    if all(width > len(name) * INCHES_PER_CHARACTER for width, name in zip(widths, names, strict=True)):
        for middle, name, color in zip(middles, names, colors, strict=True):
            axes.text(middle, 0.5, name, ha="center", va="center", fontsize=SMALL, color=_ink_on(color))
    elif (widths > NARROWEST_LABEL).all():
        for middle, name in zip(middles, names, strict=True):
            axes.annotate(
                name,
                (middle, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 4),
                textcoords="offset points",
                rotation=35,
                rotation_mode="anchor",
                va="bottom",
                fontsize=SMALL,
                color=MUTED,
            )
    elif len(stream.domains) <= MOST_COLORS:
        first = dict(zip(names, colors, strict=True))
        patches = [Patch(color=color, label=name) for name, color in first.items()]
        look = {"frameon": False, "fontsize": SMALL - 1, "labelcolor": INK, "handlelength": 1.0, "columnspacing": 1.2}
        axes.legend(handles=patches, loc="lower left", bbox_to_anchor=(0, 1), ncols=LEGEND_COLUMNS, **look)
    else:
        axes.set_title(f"{len(stream.domains):,} domains in turn", loc="left", color=MUTED, fontsize=SMALL)


def _ink_on(color: str) -> str:
    red, green, blue = to_rgb(color)
    return INK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
