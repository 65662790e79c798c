"""The page of a leaderboard and the CSV files beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tta.leaderboard.board import Leaderboard
from tta.leaderboard.columns import COLUMNS, columns_of, interval_of
from tta.leaderboard.headline import headline, verdict
from tta.leaderboard.page_figures import cost_card, heat_map_card, rank_card, task_cards
from tta.leaderboard.page_tables import (
    CELL_COLUMNS,
    cell_rows,
    column_groups,
    failures,
    neighbour_rows,
    system_rows,
)
from tta.leaderboard.tables import cell_records, system_records, timing_records
from tta.report.render import Tile, render, to_csv, write_atomically
from tta.report.verdict import count, percent

RANK = next(column for column in COLUMNS if column.key == "kemeny_rank")

LEADERS = {
    "adapter": ("good", "An adapter leads"),
    "views": ("warning", "Frozen views lead"),
    "source": ("warning", "The frozen source model leads"),
}


def write_pages(board: Leaderboard, output: Path, title: str) -> Path:
    """Write the page of a leaderboard and the CSV files beside it.

    Page, `leaderboard.csv` and `cells.csv` depend on the runs and on where they lie relative to the output, on no
    clock; what does is in `timing.csv`.

    Args:
        board: The leaderboard.
        output: The page's file, ending in `.html`, or the folder to write `leaderboard.html` into.
        title: Heading of the page.

    Returns:
        The path of the page.

    Raises:
        InputError: The output cannot be written.
    """
    page = output if output.suffix.lower() == ".html" else output / "leaderboard.html"
    folder = page.parent
    write_atomically(folder / "leaderboard.csv", to_csv(system_records(board)))
    write_atomically(folder / "cells.csv", to_csv(cell_records(board, folder)))
    write_atomically(folder / "timing.csv", to_csv(timing_records(board)))
    return write_atomically(page, _render(board, folder, title))


def _render(board: Leaderboard, folder: Path, title: str) -> str:
    columns = columns_of(board)
    words = headline(board)
    tone, word = _leads(board)
    return render(
        "leaderboard.html",
        title=title,
        facts=_facts(board),
        verdict={"tone": tone, "word": word, "sentence": words.sentences[0]},
        notices=words.sentences[1:],
        disagreements=words.disagreements,
        tiles=_tiles(board),
        failures=failures(board, folder),
        groups=column_groups(columns),
        columns=columns,
        systems=system_rows(board),
        heat_map=heat_map_card(board),
        cost=cost_card(board),
        ranks=rank_card(board),
        limits=limits(board),
        neighbours=neighbour_rows(board),
        tasks=task_cards(board),
        cell_columns=CELL_COLUMNS,
        cells=cell_rows(board, folder),
    )


def _leads(board: Leaderboard) -> tuple[str, str]:
    """Tone and word of the verdict."""
    leader = board.leader
    if leader is None:
        return "neutral", "No ranking"
    if board.ranking is not None and board.ranking.neighbours[0].tied:
        return "neutral", "First place is tied"
    tone, word = LEADERS[leader.family]
    coverage = board.coverage(leader)
    return ("neutral", f"{word}, on {coverage}") if coverage else (tone, word)


def limits(board: Leaderboard) -> str:
    """What the intervals do not know, empty where that is little."""
    seeds = [
        len({cell.entry.seed for cell in board.cells if cell.labelled and cell.entry.task == t}) for t in board.tasks
    ]
    fewest = min((count for count in seeds if count), default=0)
    words = {
        1: "With one seed, intervals know nothing of what another seed would change.",
        2: "With two seeds, intervals hold half of the variance between seeds.",
    }.get(fewest, "")
    if words and board.metrics:
        words += f" Further metrics ({', '.join(board.metrics)}) are drawn anew over seeds alone, not over images."
    return words


def _facts(board: Leaderboard) -> list[tuple[str, str]]:
    entries = [cell.entry for cell in board.cells]
    kinds = (
        ("systems", {entry.system for entry in entries}),
        ("models", {entry.model for entry in entries}),
        ("streams", {entry.stream for entry in entries}),
        ("seeds", {entry.seed for entry in entries}),
    )
    facts = [(name, count(len(members))) for name, members in kinds]
    lengths = sorted({len(cell.correct) for cell in board.cells if cell.correct.size})
    if lengths:
        span = count(lengths[0]) if len(lengths) == 1 else f"{count(lengths[0])} to {count(lengths[-1])}"
        facts.append(("samples per run", span))
    if board.metrics:
        facts.append(("ranked by", ", ".join(["accuracy", *board.metrics])))
    return facts


def _tiles(board: Leaderboard) -> list[Tile]:
    finished = len(board.cells) - len(board.failed)
    failed = len(board.failed)
    return [
        *_leader_tiles(board),
        _adapters_tile(board, "Adapters above source", "gain"),
        *([_adapters_tile(board, "Above frozen views", "views_difference")] if board.has_views else []),
        _collapse_tile(board),
        Tile(
            "Runs",
            f"{finished} of {len(board.cells)}",
            f"{failed} failed" if failed else "none failed",
            "bad" if failed else "neutral",
        ),
    ]


def _leader_tiles(board: Leaderboard) -> list[Tile]:
    if board.leader is None:
        return [Tile("First by consensus", "unknown"), Tile("Highest mean accuracy", "unknown")]
    first = Tile("First by consensus", board.leader.system, _certainty(board))
    comparable = board.comparable()
    if not comparable:
        return [first, Tile("Highest mean accuracy", "unknown", "no system has all tasks")]
    best = max(comparable, key=lambda row: row.value("accuracy"))
    accuracy = best.quantities["accuracy"]
    detail = ", ".join(filter(None, (best.system, interval_of(COLUMNS[0], accuracy))))
    return [first, Tile("Highest mean accuracy", percent(accuracy.value), detail)]


def _certainty(board: Leaderboard) -> str:
    """How sure the first place is."""
    if board.ranking is None or board.leader is None:
        return "alone"
    runner_up = board.ranking.neighbours[0]
    rank = board.leader.quantities["kemeny_rank"]
    interval = f"rank {interval_of(RANK, rank)}, 95 % interval"
    certainty = f"tied with {runner_up.worse}" if runner_up.tied else interval
    return ", ".join(filter(None, (certainty, board.coverage(board.leader))))


def _adapters_tile(board: Leaderboard, label: str, name: str) -> Tile:
    verdicts = [word for row in board.of_family("adapter") if (word := verdict(row, name))]
    if not verdicts:
        return Tile(label, "unknown")
    better, worse = verdicts.count("better"), verdicts.count("worse")
    detail = f"{worse} below, {len(verdicts) - better - worse} undecided"
    tone = ("warning" if better else "bad") if worse else "good" if better else "neutral"
    return Tile(label, f"{better} of {len(verdicts)}", detail, tone)


def _collapse_tile(board: Leaderboard) -> Tile:
    flags = {name: [cell.value(name) for cell in board.cells] for name in ("collapsed", "below_source")}
    known = {name: [value for value in values if not np.isnan(value)] for name, values in flags.items()}
    if not known["collapsed"]:
        return Tile("Collapsed runs", "unknown")
    collapsed, below = int(sum(known["collapsed"])), int(sum(known["below_source"]))
    return Tile(
        "Collapsed runs",
        f"{collapsed} of {len(known['collapsed'])}",
        f"{below} below source",
        "bad" if collapsed else "neutral",
    )
