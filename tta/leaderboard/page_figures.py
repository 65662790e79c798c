"""The figures of the page, with captions and with words for those who cannot see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tta.leaderboard.blocks import task_means
from tta.leaderboard.board import Leaderboard, Row
from tta.leaderboard.colors import looks
from tta.leaderboard.cost_figure import draw_cost, family_area, pareto, priced
from tta.leaderboard.heat_map import draw_heat_map
from tta.leaderboard.rank_figure import draw_ranks
from tta.leaderboard.stream_figure import draw_task
from tta.report.render import Card, make_card
from tta.report.verdict import percent, points


@dataclass(frozen=True)
class TaskCard:
    """A figure of one task."""

    title: str
    card: Card


def heat_map_card(board: Leaderboard) -> Card | None:
    """Gain of adapters by tasks."""
    figure = draw_heat_map(board)
    if figure is None:
        return None
    gains = [
        (gain, f"{row.system} on {task}")
        for row in board.of_family("adapter")
        for task, gain in task_means(row.cells, "gain").items()
    ]
    (lowest, worst), (highest, best) = min(gains), max(gains)
    alt = (
        "Heat map of the gain over the frozen source model in points, tasks by adapters. "
        f"Highest {points(highest)} ({best}), lowest {points(lowest)} ({worst})."
    )
    caption = (
        "Percentage points over the frozen source model on the same samples, the mean over seeds. Blue helps, orange "
        "harms. Adapters from left to right by rank."
    )
    return make_card(figure, "heat-map", alt, caption)


def cost_card(board: Leaderboard) -> Card | None:
    """Accuracy against cost."""
    figure = draw_cost(board)
    if figure is None:
        return None
    best = _names(pareto(priced(board)))
    alt = f"Scatter chart of mean accuracy against forward-equivalents per sample. Pareto set, cheapest first: {best}."
    caption = (
        "Cost in forward passes per sample, a backward pass counted as the forward passes of equal arithmetic. Steps: "
        "the best accuracy that a budget buys."
    )
    if board.lacking:
        caption += f" Not shown, as they lack tasks: {_names(board.lacking)}."
    if board.of_family("views"):
        caption += " Diamonds: the frozen source model, averaging augmented views at the adapters' cost."
    return make_card(figure, "cost", alt, caption + _areas(board))


def _areas(board: Leaderboard) -> str:
    areas = {name: family_area(board, family) for name, family in (("adapters", "adapter"), ("frozen views", "views"))}
    known = [f"{percent(area)} with {name}" for name, area in areas.items() if area is not None]
    return f" Mean accuracy over all budgets (anytime area): {', '.join(known)}." if known else ""


def rank_card(board: Leaderboard) -> Card | None:
    """Ranks under every method."""
    if board.ranking is None:
        return None
    standings = board.ranking.methods["kemeny"]
    words = []
    for system in board.ranking.consensus:
        standing = standings[board.ranking.systems.index(system)]
        words.append(f"{standing.rank} {system} ({standing.rank_low} to {standing.rank_high})")
    alt = f"Dots and intervals of the ranks under four methods. By consensus, with intervals: {', '.join(words)}."
    proof = "proven to contradict the fewest comparisons" if board.ranking.exact else "the best of a local search"
    caption = f"Ranks with 95 % bootstrap intervals. Systems stand in the consensus (Kemeny) order, {proof}."
    if board.lacking:
        caption += f" By mean accuracy, those that lack tasks are behind all others: {_names(board.lacking)}."
    return make_card(figure=draw_ranks(board.ranking), name="ranks", alt=alt, caption=caption)


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(row.system for row in rows)


def task_cards(board: Leaderboard) -> list[TaskCard]:
    """Accuracy over the stream of every task that has labels."""
    styles, cards = looks(board), []
    for index, task in enumerate(board.tasks):
        figure = draw_task(board, task, styles)
        if figure is not None:
            alt = f"Line chart of window accuracy against samples seen on {task}, one line per system."
            seeds = len({cell.entry.seed for cell in board.cells if cell.entry.task == task and cell.finished})
            words = [f"Mean over {seeds} seeds."] if seeds > 1 else []
            words += ["Dotted: frozen views."] if board.of_family("views") else []
            cards.append(TaskCard(task, make_card(figure, f"task-{index}", alt, " ".join(words))))
    return cards
