"""A matrix, from its first cell to its last."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from tta.errors import InputError
from tta.matrix.cells import Cell, plan, plan_views
from tta.matrix.engine import Engine
from tta.matrix.matrix import Matrix, has_own_network
from tta.matrix.results import Results
from tta.matrix.work import Outcome, Work


class Watcher(Protocol):
    """Is told what happens."""

    def planned(self, cells: int, finished: int) -> None:
        """So many cells there are in all, so many of which had finished before."""

    def started(self, cell: Cell) -> None:
        """A cell starts."""

    def ended(self, outcome: Outcome) -> None:
        """A cell ended, or could not be started."""


def run_matrix(matrix: Matrix, results: Results, engine: Engine, watcher: Watcher, threads: int) -> list[Outcome]:
    """Run what has not finished: source models, frozen source models, adapters, and frozen views at their costs.

    Args:
        matrix: The matrix.
        results: Where the cells are.
        engine: What runs them.
        watcher: Is told how it goes.
        threads: Threads that each cell may use on the processor.

    Returns:
        How each cell ended, in the order of the matrix; finished ones of earlier runs too.

    Raises:
        InputError: If the folder holds results of something else.
    """
    cells = plan(matrix)
    results.check(cells)
    outcomes = _run(cells, {}, results, engine, watcher, threads)
    views = list(matched_views(matrix, cells, results))
    results.check_configuration(views)
    outcomes |= _run(views, outcomes, results, engine, watcher, threads)
    return [outcomes[cell.name] for cell in (*cells, *views)]


def matched_views(matrix: Matrix, cells: Iterable[Cell], results: Results) -> dict[Cell, list[Cell]]:
    """Frozen models that average augmented views, each with the finished cells whose cost it matches.

    Args:
        matrix: The matrix.
        cells: Its planned cells.
        results: Where they are.

    Returns:
        Cells, in the order of those that they match.
    """
    matched: dict[Cell, list[Cell]] = {}
    own = {adapter.name for adapter in matrix.adapters if has_own_network(adapter)}  # whose passes cost something else
    viewed = set(matrix.viewed) - own
    for cell in cells:
        if cell.system in viewed and results.finished(cell):
            views = plan_views(matrix, cell, cost_of(results.path(cell)))
            if views is not None:
                matched.setdefault(views, []).append(cell)
    return matched


def cost_of(folder: Path) -> float:
    """Forward-equivalents per sample of a finished run."""
    file = folder / "summary.json"
    try:
        return float(json.loads(file.read_text())["cost"]["forward_equivalents_per_sample"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} does not say what the run cost: take its folder away to run that cell again"
        ) from error


def _run(
    cells: list[Cell], before: dict[str, Outcome], results: Results, engine: Engine, watcher: Watcher, threads: int
) -> dict[str, Outcome]:
    outcomes = {cell.name: Outcome(cell.name) for cell in cells if results.finished(cell)}
    watcher.planned(len(cells), len(outcomes))
    waiting = [cell for cell in cells if cell.name not in outcomes]
    running = 0

    def end(outcome: Outcome) -> None:
        outcomes[outcome.name] = outcome
        watcher.ended(outcome)

    while waiting or running:
        for cell in list(waiting):
            known = {**before, **outcomes}
            needed = [known[need.name] for need in cell.needs if need.name in known]
            if failed := [outcome for outcome in needed if outcome.error]:
                waiting.remove(cell)
                end(_not_started(cell, failed[0], results))
            elif running < engine.slots and len(needed) == len(cell.needs):
                waiting.remove(cell)
                engine.start(Work(cell, str(results.folder.resolve()), os.getcwd(), threads))
                watcher.started(cell)
                running += 1
        if running:
            for outcome in engine.ended():
                running -= 1
                end(outcome)
    return outcomes


def _not_started(cell: Cell, needed: Outcome, results: Results) -> Outcome:
    outcome = Outcome(cell.name, f"not started, {needed.name} failed: {needed.error}")
    before = results.status(cell)
    if before is None or before.state in ("failed", "not started"):  # others have something to go on with
        results.write(cell, "not started", outcome.error)
    return outcome
