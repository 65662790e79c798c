"""The leaderboard as data: what each system reached, ranked, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tta.errors import InputError
from tta.leaderboard.blocks import compare_with_frozen, make_experiment, task_means
from tta.leaderboard.cells import Cell, read_cells
from tta.leaderboard.entries import Entry, check_entries
from tta.leaderboard.frozen import FrozenModels, difference_interval
from tta.ranking import Ranking, rank

MEANS = ("ece", "regret", "forward_equivalents", "views_accuracy", "arise", "anytime")
"""Figures averaged over the seeds of each task, then over the tasks."""

SHARES = ("collapsed", "below_source", "gain_falls")
"""Figures of which the share of runs is reported."""

METHODS = ("mean", "borda", "kemeny", "plackett_luce")
"""The methods of `tta.ranking.rank`."""

CLOCK = ("seconds", "samples_per_second", "peak_memory_mb")
COMPUTED = ("accuracy", "gain", "views_difference", *MEANS[1:], "gain_falls", *METHODS, *(f"{m}_rank" for m in METHODS))
"""Figures that no run's `summary.json` gives, so that no metric may have their names."""


@dataclass(frozen=True)
class Quantity:
    """A figure of a system.

    Attributes:
        value: The figure, NaN where it is unknown.
        cells: In how many cells of the system it is known.
        low: Lower end of its 95 % bootstrap interval, NaN where it has none.
        high: Upper end.
    """

    value: float
    cells: int
    low: float = np.nan
    high: float = np.nan


@dataclass(frozen=True)
class Row:
    """One system over all its cells.

    Attributes:
        system: Its name.
        family: `adapter`, `source` or `views`.
        matches: Of `views`, the adapters whose cost it has.
        cells: Its cells, failed ones too.
        quantities: Its figures by name.
    """

    system: str
    family: str
    matches: tuple[str, ...]
    cells: tuple[Cell, ...]
    quantities: dict[str, Quantity]

    @property
    def finished(self) -> int:
        """How many of its cells have a run."""
        return sum(cell.finished for cell in self.cells)

    def value(self, name: str) -> float:
        """A figure by its name, NaN where it is unknown."""
        return self.quantities[name].value

    def tasks(self, name: str = "accuracy") -> frozenset[str]:
        """The tasks on which a figure of it is known."""
        return frozenset(task_means(self.cells, name))


@dataclass(frozen=True)
class Leaderboard:
    """Systems over a matrix of models, streams and seeds.

    Attributes:
        cells: All cells, in the order given.
        rows: One per system, best first: in the consensus order, then those without a labelled run.
        ranking: The ranking; `None` where fewer than two systems have a labelled run.
        metrics: Further metrics that the systems are ranked by, name to whether higher is better.
    """

    cells: tuple[Cell, ...]
    rows: tuple[Row, ...]
    ranking: Ranking | None
    metrics: dict[str, bool]

    @property
    def systems(self) -> tuple[str, ...]:
        """Names of the systems, in the order given, by which they keep their colours."""
        return tuple(dict.fromkeys(cell.entry.system for cell in self.cells))

    @property
    def failed(self) -> tuple[Cell, ...]:
        """The cells without a run."""
        return tuple(cell for cell in self.cells if not cell.finished)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Model and stream of every task, in the order given."""
        return tuple(dict.fromkeys(cell.entry.task for cell in self.cells))

    @property
    def leader(self) -> Row | None:
        """The best system; `None` where no run has labels."""
        return next((row for row in self.rows if not np.isnan(row.value("accuracy"))), None)

    @property
    def has_views(self) -> bool:
        """Whether a frozen model that averages views was run."""
        return any(row.family == "views" for row in self.rows)

    def comparable(self, name: str = "accuracy") -> tuple[Row, ...]:
        """The rows whose figure rests on all tasks on which that of any row does, best first."""
        tasks = {row.system: row.tasks(name) for row in self.rows}
        every = frozenset[str]().union(*tasks.values())
        return tuple(row for row in self.rows if tasks[row.system] and tasks[row.system] == every)

    def coverage(self, row: Row) -> str:
        """On how many tasks the accuracy of a row rests, such as `1 of 2 tasks`; empty where it is all or none."""
        every = frozenset[str]().union(*(other.tasks() for other in self.rows))
        own = len(row.tasks())
        return f"{own} of {len(every)} tasks" if 0 < own < len(every) else ""

    @property
    def lacking(self) -> tuple[Row, ...]:
        """The rows whose accuracy rests on fewer tasks than that of others, best first."""
        return tuple(row for row in self.rows if self.coverage(row))

    def of_family(self, family: str) -> tuple[Row, ...]:
        """The rows of one family, best first."""
        return tuple(row for row in self.rows if row.family == family)


def build_leaderboard(
    entries: Sequence[Entry], metrics: Mapping[str, bool], resamples: int = 1000, seed: int = 0
) -> Leaderboard:
    """Read the cells of a matrix and rank its systems.

    Args:
        entries: The cells; the order of the systems, models and streams is that of their first appearance.
        metrics: Further metrics of `summary.json` to rank by beside accuracy, name to whether higher is better; a dot
            in a name leads into an object.
        resamples: Bootstrap resamples behind the intervals.
        seed: Seed of the resamples.

    Raises:
        InputError: The entries form no matrix, two systems ran over different samples of one model, stream and seed, or
            a metric is not in any run's `summary.json`.
    """
    check_entries(entries)
    check_metric_names(metrics)
    cells = compare_with_frozen(read_cells(entries, tuple(metrics)))
    experiment = make_experiment(cells, metrics)
    ranking = None if experiment is None else rank(experiment, resamples, seed)
    systems = tuple(dict.fromkeys(entry.system for entry in entries))
    order = systems if ranking is None else (*ranking.consensus, *(s for s in systems if s not in ranking.systems))
    members = {system: tuple(cell for cell in cells if cell.entry.system == system) for system in order}
    frozen = FrozenModels(cells)
    rows = tuple(
        _make_row(own, _quantities(own, ranking, metrics, _differences(own, frozen, resamples, seed)))
        for own in members.values()
    )
    return Leaderboard(cells, rows, ranking, dict(metrics))


def check_metric_names(names: Iterable[str]) -> None:
    """Make sure that metrics are no columns that are there anyway, and do not depend on the clock.

    Args:
        names: Metrics of ``summary.json``.

    Raises:
        InputError: If one is.
    """
    for name in names:
        if name in COMPUTED:
            raise InputError(f"metrics: {name!r} is a column of every leaderboard: name a figure of summary.json")
        if name.rpartition(".")[2] in CLOCK:
            raise InputError(
                f"metrics: {name!r} depends on the clock: timing.csv has it, a ranking that repeats cannot"
            )


def _make_row(cells: tuple[Cell, ...], quantities: dict[str, Quantity]) -> Row:
    first = cells[0].entry
    matches = tuple(dict.fromkeys(adapter for cell in cells for adapter in cell.entry.matches))
    return Row(first.system, first.family, matches, cells, quantities)


def _quantities(
    cells: Sequence[Cell], ranking: Ranking | None, metrics: Mapping[str, bool], differences: Mapping[str, Quantity]
) -> dict[str, Quantity]:
    standings = _standings(cells[0].entry.system, sum(cell.labelled for cell in cells), ranking)
    mean = standings.pop("mean")
    accuracy = _mean_over_tasks(cells, "accuracy") if np.isnan(mean.value) else mean
    means = {name: _mean_over_tasks(cells, name) for name in dict.fromkeys((*MEANS, *metrics))}
    return {"accuracy": accuracy, **differences, **standings, **means, **{name: _share(cells, name) for name in SHARES}}


def _differences(cells: Sequence[Cell], frozen: FrozenModels, resamples: int, seed: int) -> dict[str, Quantity]:
    """Differences in accuracy from frozen models, with an interval but for these models themselves."""
    quantities = {}
    for name, rival in (("gain", frozen.source), ("views_difference", frozen.same_cost)):
        quantity = _mean_over_tasks(cells, name)
        pairs = [(cell, other) for cell in cells if cell.labelled and (other := rival(cell)) and other is not cell]
        if pairs:
            low, high = difference_interval(pairs, resamples, seed)
            quantity = replace(quantity, low=low, high=high)
        quantities[name] = quantity
    return quantities


def _standings(system: str, known: int, ranking: Ranking | None) -> dict[str, Quantity]:
    """Score and rank under each method."""
    quantities: dict[str, Quantity] = {}
    for method in METHODS:
        score = place = Quantity(np.nan, known)
        if ranking is not None and system in ranking.systems:
            standing = ranking.methods[method][ranking.systems.index(system)]
            score = Quantity(standing.score, known, standing.low, standing.high)
            if not np.isnan(standing.score):
                place = Quantity(standing.rank, known, standing.rank_low, standing.rank_high)
        quantities |= {method: score, f"{method}_rank": place}
    return quantities


def _mean_over_tasks(cells: Sequence[Cell], name: str) -> Quantity:
    values = task_means(cells, name)
    known = sum(not np.isnan(cell.value(name)) for cell in cells)
    return Quantity(float(np.mean(list(values.values()))) if values else np.nan, known)


def _share(cells: Sequence[Cell], name: str) -> Quantity:
    known = [cell.value(name) for cell in cells if not np.isnan(cell.value(name))]
    return Quantity(float(np.mean(known)) if known else np.nan, len(known))
