"""Cells side by side: what each did on the same samples as the frozen models, and the experiment to rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tta.leaderboard.cells import Cell
from tta.leaderboard.frozen import FrozenModels, paired
from tta.ranking import Block, Experiment, adaptation_regret, anytime_area, arise, gain_falls


def compare_with_frozen(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Give each cell its accuracy and its figures against the frozen models of its block.

    Adds `accuracy`, `gain`, `views_accuracy`, `views_difference` and `anytime` in [0, 1] or [-1, 1], `regret` in
    samples of 100, `gain_falls` as 0 or 1, `arise` in [-cost, 1]; each is left out where a part of it is missing.
    """
    frozen = FrozenModels(cells)
    budget = largest_budget([cell.value("forward_equivalents") for cell in cells])
    return tuple(
        cell.known(
            accuracy=float(np.nanmean(cell.correct)),
            **_against_source(cell, frozen.source(cell), budget),
            **_against_views(cell, frozen.same_cost(cell)),
            **_regret(cell, frozen),
        )
        if cell.labelled
        else cell
        for cell in cells
    )


def largest_budget(costs: Sequence[float]) -> float:
    """Up to which cost, in forward passes per sample, the anytime area goes: twice the dearest system's.

    Each system is then bought by the budgets of at least one doubling.

    Args:
        costs: Costs of systems, NaN where unknown.
    """
    return 2.0 * max((cost for cost in costs if cost > 0), default=1.0)


def _against_source(cell: Cell, source: Cell | None, budget: float) -> dict[str, float]:
    if source is None:
        return {}
    levels = paired(source, cell)
    frozen, adapted = np.nanmean(levels, axis=1)
    gain = float(adapted - frozen)
    figures = {"gain": gain}
    falls = gain_falls(cell.correct, source.correct, cell.domains)
    if falls is not None:
        figures["gain_falls"] = float(falls)
    cost = cell.value("forward_equivalents")
    if cost > 0:
        costs = np.array([1.0, cost])
        figures["arise"] = arise(levels, costs) if cost > 1 else gain
        figures["anytime"] = anytime_area(costs, np.array([frozen, adapted]), 1.0, budget)
    return figures


def _against_views(cell: Cell, rival: Cell | None) -> dict[str, float]:
    if rival is None:
        return {}
    accuracy, other = np.nanmean(paired(cell, rival), axis=1)
    return {"views_accuracy": float(other), "views_difference": float(accuracy - other)}


def _regret(cell: Cell, frozen: FrozenModels) -> dict[str, float]:
    """Against the frozen models that cost no more: the source model, and views at the same cost."""
    source, views = frozen.source(cell), frozen.same_cost(cell)
    if source is None:
        return {}
    adapted, *rivals = paired(cell, source, *([] if views is None else [views]))
    known = np.count_nonzero(~np.isnan(adapted))
    return {"regret": 100 * float(adaptation_regret(adapted, np.stack(rivals))[-1]) / known}


def make_experiment(cells: Sequence[Cell], metrics: Mapping[str, bool]) -> Experiment | None:
    """What there is to rank: a block per model, stream and seed, with every system that has a labelled run.

    `None` where fewer than two systems have one.

    Args:
        cells: All cells; those of a block cover the same samples.
        metrics: Further metrics to rank by, name to whether higher is better.
    """
    labelled = [cell for cell in cells if cell.labelled]
    systems = _by_accuracy(labelled)
    if len(systems) < 2:
        return None
    members: dict[tuple[str, str, int], dict[str, Cell]] = {}
    for cell in labelled:
        members.setdefault(cell.entry.block, {})[cell.entry.system] = cell
    return Experiment(systems, tuple(_make_block(block, systems, metrics) for block in members.values()), dict(metrics))


def _by_accuracy(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The systems with all tasks, the most accurate first, then the others: the ranking settles ties by this order."""
    members: dict[str, list[Cell]] = {}
    for cell in cells:
        members.setdefault(cell.entry.system, []).append(cell)
    accuracy = {system: [*task_means(own, "accuracy").values()] for system, own in members.items()}
    return tuple(sorted(accuracy, key=lambda system: (-len(accuracy[system]), -np.mean(accuracy[system]))))


def task_means(cells: Sequence[Cell], name: str) -> dict[str, float]:
    """Mean of a figure over the seeds of each task, without the tasks where it is unknown throughout.

    Args:
        cells: Cells of one system.
        name: The figure.
    """
    values: dict[str, list[float]] = {}
    for cell in cells:
        value = cell.value(name)
        if not np.isnan(value):
            values.setdefault(cell.entry.task, []).append(value)
    return {task: float(np.mean(known)) for task, known in values.items()}


def _make_block(members: Mapping[str, Cell], systems: Sequence[str], metrics: Mapping[str, bool]) -> Block:
    first = next(iter(members.values()))
    correct = np.full((len(systems), len(first.correct)), np.nan)
    for row, system in enumerate(systems):
        if system in members:
            correct[row] = members[system].correct
    columns = {
        name: np.array([members[system].value(name) if system in members else np.nan for system in systems])
        for name in metrics
    }
    return Block(first.entry.task, first.entry.seed, correct, first.images, columns)
