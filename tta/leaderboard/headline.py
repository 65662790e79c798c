"""What a leaderboard amounts to, in plain sentences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tta.leaderboard.board import Leaderboard, Row
from tta.ranking import Comparison
from tta.report.verdict import percent, points

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Headline:
    """The news of a leaderboard.

    Attributes:
        sentences: What happened, the most important first.
        disagreements: Where the mean and the consensus order two systems differently.
    """

    sentences: tuple[str, ...]
    disagreements: tuple[str, ...]


def headline(board: Leaderboard) -> Headline:
    """Say who leads, whether by more than chance, and whether adapting pays against frozen models."""
    sentences = [_first(board), *_runner_up(board), *_against_frozen(board)]
    return Headline(tuple(sentences), () if board.ranking is None else board.ranking.disagreements)


def _first(board: Leaderboard) -> str:
    best = board.leader
    if best is None:
        finished = len(board.failed) < len(board.cells)
        return "No run has labels, so nothing is ranked." if finished else "No run finished."
    accuracy = best.quantities["accuracy"]
    text = f"mean accuracy {percent(accuracy.value)}"
    if not np.isnan(accuracy.low):
        text += f" (95 % interval {percent(accuracy.low)} to {percent(accuracy.high)})"
    gain = best.value("gain")
    if best.family != "source" and not np.isnan(gain):
        text += f", {points(gain)} points over the frozen source model"
    if board.ranking is None:
        return f"{best.system} is alone: {text}."
    return f"{best.system} ranks first of {len(board.ranking.systems)} systems: {text}."


def _runner_up(board: Leaderboard) -> list[str]:
    if board.ranking is None or not board.ranking.neighbours:
        return []
    test = board.ranking.neighbours[0]
    second, p = f"{test.worse}, which ranks second", f"paired test, adjusted p {p_text(test.adjusted_p)}"
    if not significant(test):
        return [f"It cannot be told from {second} ({p})."]
    distance = f"{100 * abs(test.difference):.1f} points"
    if test.difference > 0:
        return [f"Over all samples it is {distance} more accurate than {second} ({p})."]
    return [f"Over all samples {second}, is {distance} more accurate ({p}); the consensus goes by tasks and metrics."]


def _against_frozen(board: Leaderboard) -> list[str]:
    sentences = []
    for name, rival in (("gain", "the frozen source model"), ("views_difference", "frozen views at the same cost")):
        known = [word for row in board.of_family("adapter") if (word := verdict(row, name))]
        counts = [(known.count(word), word) for word in ("better", "worse", "undecided") if word in known]
        parts = [f"{number} {'is' if number == 1 else 'are'} {word}" for number, word in counts]
        if parts:
            listed = " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
            sentences.append(f"Of {len(known)} adapters against {rival}, {listed} (95 % intervals).")
    return sentences


def verdict(row: Row, name: str) -> str:
    """Whether a difference is beyond its interval: `better`, `worse`, `undecided`; empty where it is unknown."""
    difference = row.quantities[name]
    if np.isnan(difference.low):
        return ""
    return "better" if difference.low > 0 else "worse" if difference.high < 0 else "undecided"


def significant(test: Comparison) -> bool:
    """Whether a paired test of neighbours finds a difference at the 5 % level, adjusted for the number of tests."""
    return bool(test.adjusted_p < SIGNIFICANT)


def p_text(p: float) -> str:
    """A p-value with its sign of relation, `unknown` where there is none."""
    if np.isnan(p):
        return "unknown"
    return "< 0.001" if p < 0.001 else f"= {p:.2g}" if p < 0.1 else f"= {p:.2f}"
