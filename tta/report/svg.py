"""Figures as inline SVG that follows the page's light or dark scheme."""

from __future__ import annotations

import io
import re
import warnings

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from tta.report.style import ADAPTED, BAND, BELOW, COLLAPSED, GRID, INK, MUTED, SERIES, SOURCE

THEME = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    BAND: "--band",
    SOURCE: "--source",
    ADAPTED: "--adapted",
    COLLAPSED: "--collapsed",
    BELOW: "--below",
} | {color: f"--series-{index}" for index, color in enumerate(SERIES) if color not in (ADAPTED, COLLAPSED, BELOW)}


def to_svg(figure: Figure, name: str, alt: str) -> Markup:
    """Render a figure as an `<svg>` element to put into a page.

    Colours of the palette become CSS variables, text stays text, and ids are prefixed so that figures do not clash.

    Args:
        figure: The figure; its background is left out.
        name: Prefix of the ids, unique on the page; letters, digits and hyphens.
        alt: What the figure shows, for those who cannot see it.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"])
        )
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    head, _, body = text.partition(">")
    view = re.search(r'viewBox="[^"]*"', head)
    head = f'<svg {view.group() if view else ""} role="img" aria-label="{escape(alt)}">'
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    for color, variable in THEME.items():
        body = body.replace(f": {color}", f": var({variable})")
    return Markup(head + body)  # noqa: S704
