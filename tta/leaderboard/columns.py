"""The columns of the leaderboard: what each means, how it is written, which end of it is good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tta.leaderboard.board import Leaderboard, Quantity
from tta.report.verdict import MINUS, percent, points

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Column:
    """A figure in tables.

    Attributes:
        key: Name of the figure.
        group: Heading that it stands under.
        title: Its own heading.
        meaning: What it is, in a sentence or two.
        write: Text of a known value.
        low_is_good: Whether sorting starts with the lowest value.
        signed: Whether one side of zero is good news and the other bad news.
        of_runs: Whether it is a share of runs, written as counts.
        flags: Whether such a share above zero is bad news.
        highlighted: Whether the best system of the column is worth pointing out.
    """

    key: str
    group: str
    title: str
    meaning: str
    write: Callable[[float], str]
    low_is_good: bool = False
    signed: bool = False
    of_runs: bool = False
    flags: bool = False
    highlighted: bool = False


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _percent(value: float) -> str:
    return percent(value)


def _signed(value: float) -> str:
    text = f"{value:+.2f}".replace("-", MINUS)
    return text[1:] if float(text[1:]) == 0 else text


COLUMNS = (
    Column(
        "accuracy",
        "Accuracy",
        "Mean",
        "Online accuracy: the mean over the seeds of each task (a model on a stream), then over the tasks.",
        _percent,
        highlighted=True,
    ),
    Column(
        "gain",
        "Accuracy",
        "Over source",
        "Percentage points of accuracy over the frozen source model on the same samples.",
        points,
        signed=True,
        highlighted=True,
    ),
    Column("ece", "Accuracy", "ECE", "Expected calibration error.", _percent, low_is_good=True, highlighted=True),
    Column(
        "kemeny_rank",
        "Rank",
        "Kemeny",
        "Rank in the consensus: the order that contradicts the fewest comparisons of two systems on a task, by "
        "accuracy and by each further metric. Where several do, one of them stands here, and the intervals hold all.",
        _whole,
        low_is_good=True,
    ),
    Column(
        "borda_rank",
        "Rank",
        "Borda",
        "Rank by Borda score: how likely the system is better than a random other row of this table "
        "on a random task and metric.",
        _whole,
        low_is_good=True,
    ),
    Column(
        "plackett_luce_rank",
        "Rank",
        "Plackett-Luce",
        "Rank by strength in a Plackett-Luce model, of pairs, which is the Bradley-Terry model: how often the system "
        "is right where another one is wrong, and the other way round. Samples on which two agree do not count.",
        _whole,
        low_is_good=True,
    ),
    Column(
        "collapsed",
        "Stability",
        "Collapsed",
        "Runs whose predictions concentrated on few classes while those of the frozen source model did not.",
        _whole,
        low_is_good=True,
        of_runs=True,
        flags=True,
    ),
    Column(
        "below_source",
        "Stability",
        "Below source",
        "Runs that were, over some window, significantly less accurate than the frozen source model.",
        _whole,
        low_is_good=True,
        of_runs=True,
        flags=True,
    ),
    Column(
        "gain_falls",
        "Stability",
        "Gain falls",
        "Runs whose gain over the frozen source model is significantly lower in the last third of the stream than in "
        "the first, within the domains that occur in both; a dash where none does. A reason to look, no fault by "
        "itself: the system may be ahead all the way, with less left to gain, and on a stream sorted by class it may "
        "be the classes.",
        _whole,
        low_is_good=True,
        of_runs=True,
    ),
    Column(
        "regret",
        "Stability",
        "Regret",
        "Adaptation regret at the end of the stream: of 100 samples, how many more the best frozen model in hindsight "
        "has right, of those that cost no more. Below zero, adapting was worth it.",
        _signed,
        low_is_good=True,
        signed=True,
        highlighted=True,
    ),
    Column(
        "forward_equivalents",
        "Cost",
        "Forward equivalents",
        "Cost per sample in forward passes, with a backward pass counted as the forward passes of equal arithmetic.",
        _number,
        low_is_good=True,
    ),
    Column(
        "views_accuracy",
        "Cost",
        "Views, same cost",
        "Accuracy of a frozen model that averages as many augmented views as cost the same; of an adapter that costs a "
        "single forward pass, that of the frozen source model.",
        _percent,
    ),
    Column(
        "views_difference",
        "Cost",
        "Over views",
        "Percentage points of accuracy over the frozen views at the same cost.",
        points,
        signed=True,
        highlighted=True,
    ),
    Column(
        "arise",
        "Cost",
        "ARISE",
        "Mean change over the samples from the frozen source model, at cost 1, to the system at its cost: a sample put "
        "right counts 1 / cost, a sample put wrong minus the cost.",
        _signed,
        signed=True,
        highlighted=True,
    ),
    Column(
        "anytime",
        "Cost",
        "Anytime area",
        "Mean accuracy over budgets, log-uniform from one forward pass to twice the dearest system's cost. Each buys "
        "the better of the frozen source model and, from its cost on, the system, the better in hindsight: so it is "
        "never below the source model, and no measure of harm.",
        _percent,
    ),
)
"""The figures of a system, in the order of the table."""

VIEWS = ("views_accuracy", "views_difference")
"""Those that need frozen views."""


def columns_of(board: Leaderboard) -> tuple[Column, ...]:
    """The columns of a board: with one for each further metric that has none, without frozen views where none ran."""
    shown = [column for column in COLUMNS if board.has_views or column.key not in VIEWS]
    known = {column.key for column in COLUMNS}
    further = [
        Column(name, "Accuracy", name, f"`{name}` of the runs' summary.json, which the ranking takes in.", _number)
        for name in board.metrics
        if name not in known
    ]
    place = next(index for index, column in enumerate(shown) if column.group == "Rank")
    return (*shown[:place], *further, *shown[place:])


def text_of(column: Column, quantity: Quantity) -> str:
    """A quantity as text, a dash where it is unknown."""
    if np.isnan(quantity.value):
        return DASH
    if column.of_runs:
        return f"{round(quantity.value * quantity.cells)} of {quantity.cells}"
    return column.write(quantity.value)


def interval_of(column: Column, quantity: Quantity) -> str:
    """The interval of a quantity as text without units, empty where it has none."""
    if np.isnan(quantity.low) or np.isnan(quantity.high):
        return ""
    low, high = (column.write(end).removesuffix(" %") for end in (quantity.low, quantity.high))
    return f"{low} to {high}" if column.signed else f"{low}{DASH}{high}"
