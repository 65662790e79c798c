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
    sentences = [_first(board), *_runner_up(board), *_against_frozen(board), *_left_out(board)]
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
    place = f"{best.system} ranks first of {len(board.ranking.systems)} systems"
    runner_up = board.ranking.neighbours[0]
    tied = f"tied with {runner_up.worse}" if runner_up.tied else ""
    coverage = board.coverage(best)
    return f"{', '.join(filter(None, (place, tied, coverage and f'on {coverage}')))}: {text}."


def _runner_up(board: Leaderboard) -> list[str]:
    if board.ranking is None or not board.ranking.neighbours:
        return []
    test = board.ranking.neighbours[0]
    second = f"{test.worse}, which {'is tied with it' if test.tied else 'ranks second'}"
    if not significant(test):
        return [f"It cannot be told from {second} ({_why_undecided(test)})."]
    p = f"paired test on these runs, for other images: adjusted p {p_text(test.adjusted_p)}"
    distance = f"{100 * abs(test.difference):.1f} points more accurate"
    if test.difference > 0:
        return [f"Over the samples of both it is {distance} than {second} ({p})."]
    return [f"Over the samples of both {second}, is {distance} ({p}); the consensus goes by tasks and metrics."]


def _against_frozen(board: Leaderboard) -> list[str]:
    sentences = []
    for name, rival in (("gain", "the frozen source model"), ("views_difference", "frozen views at the same cost")):
        known = [word for row in board.of_family("adapter") if (word := verdict(row, name))]
        counts = [(known.count(word), word) for word in ("better", "worse", "undecided") if word in known]
        nouns = [("adapter is", "adapters are"), *[("is", "are")] * 2]
        parts = [f"{number} {noun[number > 1]} {word}" for (number, word), noun in zip(counts, nouns, strict=False)]
        if parts:
            listed = " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
            sentences.append(f"Against {rival} {listed} (95 % intervals).")
    return sentences


def _left_out(board: Leaderboard) -> list[str]:
    lacking = [f"{row.system} ({board.coverage(row)})" for row in board.lacking]
    if not lacking:
        return []
    return [
        "Left out of the bests and the Pareto set, and last by mean accuracy, for lack of tasks that others have: "
        f"{', '.join(lacking)}."
    ]


def _why_undecided(test: Comparison) -> str:
    if test.adjusted_p < SIGNIFICANT:
        ends = f"{points(test.low)} to {points(test.high)}"
        return f"95 % interval of the difference over seeds and images {ends} points"
    return f"paired test on these runs, for other images: adjusted p {p_text(test.adjusted_p)}"


def verdict(row: Row, name: str) -> str:
    """Whether a difference is beyond its interval: `better`, `worse`, `undecided`; empty where it is unknown."""
    difference = row.quantities[name]
    if np.isnan(difference.low):
        return ""
    return "better" if difference.low > 0 else "worse" if difference.high < 0 else "undecided"


def significant(test: Comparison) -> bool:
    """Whether neighbours differ on other images and with other seeds.

    By the paired test at the 5 % level, adjusted for the number of tests, and by the interval over seeds and images.
    """
    return bool(test.adjusted_p < SIGNIFICANT and (test.low > 0 or test.high < 0))


def p_text(p: float) -> str:
    """A p-value with its sign of relation, `unknown` where there is none."""
    if np.isnan(p):
        return "unknown"
    return "< 0.001" if p < 0.001 else f"= {p:.2g}" if p < 0.1 else f"= {p:.2f}"
