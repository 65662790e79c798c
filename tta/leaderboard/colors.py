"""How systems look in the figures: one colour and dash each, the same from figure to figure."""

from __future__ import annotations

from dataclasses import dataclass

from tta.leaderboard.board import Leaderboard
from tta.report.style import DASHES, SERIES, SOURCE

ROUNDS = tuple(zip([dash for dash in DASHES if dash != ":"], ("o", "^", "v"), strict=True))
"""Dash and marker of the adapters that have the first, second and third turn at the colours."""


@dataclass(frozen=True)
class Look:
    """How a system is drawn.

    Attributes:
        color: Of its line and marker.
        dash: Of its line; dotted are the frozen views.
        marker: Of its points.
    """

    color: str
    dash: str
    marker: str


def looks(board: Leaderboard) -> dict[str, Look]:
    """The look of every system; frozen views take the colour of the first adapter whose cost they have."""
    families = {row.system: row for row in board.rows}
    adapters = [system for system in board.systems if families[system].family == "adapter"]
    drawn = {}
    for index, system in enumerate(adapters):
        turn, color = divmod(index, len(SERIES))
        drawn[system] = Look(SERIES[color], *ROUNDS[turn % len(ROUNDS)])
    for system in board.systems:
        row = families[system]
        if row.family == "source":
            drawn[system] = Look(SOURCE, "--", "s")
        elif row.family == "views":
            match = next((drawn[adapter].color for adapter in row.matches if adapter in drawn), SOURCE)
            drawn[system] = Look(match, ":", "D")
    return drawn
