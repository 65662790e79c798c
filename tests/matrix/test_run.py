"""The order in which cells run, and what failures stop. Cells are made up here: nothing is adapted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.matrix.test_cells import MATRIX
from tta.errors import InputError
from tta.matrix import Cell, Matrix, Outcome, Results, Work, plan, run_matrix

COSTS = {"tent": 2.0, "sar": 2.05, "source": 1.0}


class MadeUp:
    """An engine that runs nothing: every second running cell ends at a time, those in ``fails`` fail."""

    def __init__(self, slots: int, fails: tuple[str, ...] = (), interrupted_after: int = 1000) -> None:
        self.slots = slots
        self.fails = fails
        self.left = interrupted_after
        self.ran: list[str] = []
        self.running: list[Work] = []
        self.most = 0

    def start(self, work: Work) -> None:
        results = Results(Path(work.folder))
        for need in work.cell.needs:
            assert results.finished(need), f"{work.cell.name} was started before {need.name} had finished"
        self.running.append(work)
        self.most = max(self.most, len(self.running))

    def ended(self) -> list[Outcome]:
        ending, self.running = self.running[-1::-2], self.running[-2::-2][::-1]
        return [self._end(work) for work in ending]

    def _end(self, work: Work) -> Outcome:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        cell, results = work.cell, Results(Path(work.folder))
        results.begin(cell)
        self.ran.append(cell.name)
        if any(name in cell.name for name in self.fails):
            results.write(cell, "failed", "it is made up")
            return Outcome(cell.name, "it is made up")
        cost = {"forward_equivalents_per_sample": COSTS.get(cell.system, 2.0)}
        (results.path(cell) / "summary.json").write_text(json.dumps({"cost": cost}))
        results.end(cell)
        return Outcome(cell.name)

    def close(self) -> None:
        self.running.clear()


class Quiet:
    def __init__(self) -> None:
        self.told: list[str] = []

    def planned(self, cells: int, finished: int) -> None:
        pass

    def started(self, cell: Cell) -> None:
        pass

    def ended(self, outcome: Outcome) -> None:
        self.told.append(outcome.name)


def run(folder: Path, engine: MadeUp, matrix: Matrix = MATRIX) -> list[Outcome]:
    watcher = Quiet()
    outcomes = run_matrix(matrix, Results(folder), engine, watcher, threads=1)
    assert len(set(watcher.told)) == len(watcher.told)
    return outcomes


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_all_cells_run_once_and_views_last(slots: int, tmp_path: Path) -> None:
    engine = MadeUp(slots)
    outcomes = run(tmp_path, engine)
    planned = [cell.name for cell in plan(MATRIX)]
    assert sorted(engine.ran[: len(planned)]) == sorted(planned)
    views = engine.ran[len(planned) :]
    assert sorted(views) == sorted(
        f"cells/{m}/{s}/views2.01/seed{k}" for m in ("bn", "gn") for s in ("mixed", "continual") for k in (0, 7)
    ), "tent and sar cost about the same, and share one"
    assert [outcome.name for outcome in outcomes][: len(planned)] == planned
    assert not any(outcome.error for outcome in outcomes)
    assert engine.most == slots


@pytest.mark.parametrize("after", [0, 1, 4, 11, 26])
def test_a_matrix_that_is_stopped_goes_on_and_repeats_nothing(after: int, tmp_path: Path) -> None:
    stopped, going_on = MadeUp(2, interrupted_after=after), MadeUp(3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stopped)
    outcomes = run(tmp_path, going_on)
    assert len(stopped.ran) == after
    assert not set(stopped.ran) & set(going_on.ran)
    assert sorted(stopped.ran + going_on.ran) == sorted(outcome.name for outcome in outcomes)
    assert run(tmp_path, again := MadeUp(1)) == outcomes
    assert again.ran == []


def test_a_cell_that_fails_stops_only_what_needs_it(tmp_path: Path) -> None:
    fails = ("sources/gn", "bn/mixed/source/seed0", "bn/continual/tent/seed7")
    engine = MadeUp(2, fails)
    failed = {outcome.name: outcome.error for outcome in run(tmp_path, engine) if outcome.error}
    assert failed.pop("sources/gn") == "it is made up"
    assert failed.pop("cells/bn/continual/tent/seed7") == "it is made up"
    assert failed.pop("cells/bn/mixed/source/seed0") == "it is made up"
    for adapter in ("tent", "sar"):
        said = failed.pop(f"cells/bn/mixed/{adapter}/seed0")
        assert said == "not started, cells/bn/mixed/source/seed0 failed: it is made up"
    assert len(failed) == 12
    assert all(name.startswith("cells/gn/") and "sources/gn failed" in error for name, error in failed.items())
    assert not any(outcome.error for outcome in run(tmp_path, MadeUp(2)))


def test_a_folder_of_another_matrix_is_left_alone(tmp_path: Path) -> None:
    run(tmp_path, MadeUp(2))
    engine = MadeUp(2)
    other = replace(MATRIX, common=replace(MATRIX.common, options=("--data.batch_size", "16")))
    with pytest.raises(InputError, match="was run with another configuration"):
        run(tmp_path, engine, other)
    assert engine.ran == []
    grown = replace(MATRIX, seeds=(0, 7, 8))
    run(tmp_path, engine, grown)
    assert engine.ran
    assert all("seed8" in name for name in engine.ran), "a matrix may grow"


def test_views_of_another_configuration_are_left_alone(tmp_path: Path) -> None:
    run(tmp_path, MadeUp(2))
    engine = MadeUp(2)
    with pytest.raises(InputError, match=r"views2\.01/seed0 was run with another configuration"):
        run(tmp_path, engine, replace(MATRIX, views=replace(MATRIX.views, options=("--model.adapter.seed", "4"))))
    assert engine.ran == []


def test_a_run_that_does_not_say_its_cost_is_told(tmp_path: Path) -> None:
    run(tmp_path, MadeUp(2))
    (tmp_path / "cells/bn/mixed/tent/seed0/summary.json").write_text("{}")
    with pytest.raises(InputError, match=r"tent/seed0/summary\.json does not say what the run cost"):
        run(tmp_path, MadeUp(2))
