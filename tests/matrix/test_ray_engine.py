"""Cells on a cluster of two nodes, of which one is lost, and on one that is started for them."""

import importlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.fixtures import LOOPBACK
from tta.errors import InputError
from tta.matrix import Cell, Matrix, Outcome, Results, Work, plan, read_matrix, run_cell, run_matrix
from tta.matrix.ray_engine import RayEngine

pytest.importorskip("ray")

ROOT = Path(__file__).parents[2]
RECORDS = ("metrics.csv", "predictions.csv")
MEMORY = 80 * 1024**2


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command is given in the project; Ray leaves its marks in the environment."""
    monkeypatch.chdir(ROOT)
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes with a processor each, the command on the first. Ray gives them the machine's own address."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": MEMORY}
    started = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    monkeypatch.setattr("tests.fixtures.LOOPBACK", (*LOOPBACK, started.address.rpartition(":")[0]))
    started.add_node(**node)
    yield started
    started.shutdown()


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    folder = tmp_path_factory.mktemp("matrix")
    small = {"samples_per_domain": 20, "domains": ["contrast", "invert"], "batch_size": 10}
    stream = {"class_path": "tests.matrix.held_digits.HeldDigits", "init_args": {"hold": str(folder / "hold"), **small}}
    callbacks = [
        {"class_path": "tta.callbacks.BatchCheckpoint", "init_args": {"every_n_batches": 1}},
        {"class_path": "tests.matrix.held_digits.NoReport"},
    ]
    (folder / "digits.yaml").write_text(yaml.safe_dump({"data": stream}))
    (folder / "trainer.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    (folder / "matrix.yaml").write_text(
        yaml.safe_dump(
            {
                "config": [str(folder / "digits.yaml"), str(folder / "trainer.yaml"), "configs/trainer/cpu.yaml"],
                "models": {"resnet": "configs/model/digits_resnet.yaml"},
                "adapters": {"tent": "configs/adapter/tent.yaml"},
                "streams": {"continual": "configs/stream/continual.yaml"},
                "seeds": [0, 1],
                "frozen_views": False,
            }
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return read_matrix(folder / "matrix.yaml")


@pytest.fixture(scope="module")
def hold(matrix: Matrix) -> Path:
    return Path(matrix.common.config[0]).parent / "hold"


@pytest.fixture
def alone(matrix: Matrix, tmp_path: Path) -> Results:
    """Results of the cells one after the other in this process."""
    results = Results(tmp_path / "alone")
    for cell in plan(matrix):
        assert run_cell(_work(cell, results)) == Outcome(cell.name)
    return results


class Unwatched:
    def planned(self, cells: int, finished: int) -> None: ...

    def started(self, cell: Cell) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...


def _work(cell: Cell, results: Results) -> Work:
    return Work(cell, str(results.folder), str(ROOT), threads=1)


def _wait_for(*files: Path) -> None:
    limit = time.monotonic() + 120
    while not all(file.exists() for file in files):
        assert time.monotonic() < limit, f"there is no {files}"
        time.sleep(0.02)


def test_what_a_lost_node_ran_is_run_on_another(
    cluster: Any, matrix: Matrix, hold: Path, alone: Results, tmp_path: Path
) -> None:
    cells = plan(matrix)
    results = Results(tmp_path / "spread")
    for cell in cells[:2]:
        shutil.copytree(alone.path(cell), results.path(cell))
    hold.write_text("wait")
    lost = next(iter(cluster.worker_nodes))

    def lose_a_node() -> None:
        try:
            _wait_for(*(results.path(cell) / "checkpoints" / "last.ckpt" for cell in cells[2:]))
            cluster.remove_node(lost, allow_graceful=False)
        finally:
            hold.unlink()

    meanwhile = threading.Thread(target=lose_a_node)
    engine = RayEngine(cluster.address, cpus=1, gpus=0, retries=1, jobs=None)
    meanwhile.start()
    try:
        outcomes = run_matrix(matrix, results, engine, Unwatched(), threads=1)
    finally:
        engine.close()
        meanwhile.join()
    assert outcomes == [Outcome(cell.name) for cell in cells]
    attempts = [status.attempts for cell in cells if (status := results.status(cell)) is not None]
    assert attempts[:2] == [1, 1], "what had finished was run again"
    assert sorted(attempts[2:]) == [1, 2], "each node had a cell, and one of them was lost"
    for cell in cells:
        for name in RECORDS:
            assert (results.path(cell) / name).read_bytes() == (alone.path(cell) / name).read_bytes()


def test_a_cell_whose_process_dies_is_told_in_one_line(matrix: Matrix, hold: Path, tmp_path: Path) -> None:
    results, cell = Results(tmp_path), plan(matrix)[0]
    hold.write_text("kill")
    engine = RayEngine(None, cpus=1, gpus=0, retries=0, jobs=2)
    try:
        assert engine.slots == 2
        engine.start(_work(cell, results))
        (outcome,) = engine.ended()
    finally:
        engine.close()
        hold.unlink()
    assert outcome.name == cell.name
    assert outcome.error.startswith("its process or node died more often than --retries allows (WorkerCrashedError")
    _check_noted(results, cell, "died", outcome)


class InThisProcess:
    """A Ray whose tasks run here, when their outcome is asked for."""

    exceptions = importlib.import_module("ray.exceptions")

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 1.0}}]

    def remote(self, **_: Any) -> Any:
        return lambda task: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=partial(partial, task)))

    def wait(self, references: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return references, []

    def get(self, reference: Any) -> Outcome:
        try:
            return reference()
        except InputError as error:
            raise self.exceptions.RayTaskError("", "", error, "task", 1, "127.0.0.1").as_instanceof_cause() from error


def test_a_node_that_does_not_see_the_folders_is_told_in_one_line(
    matrix: Matrix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, cell = Results(tmp_path), plan(matrix)[0]
    monkeypatch.setattr("tta.matrix.ray_engine.connected", lambda address: nullcontext(InThisProcess()))
    engine = RayEngine(None, cpus=1, gpus=0, retries=0, jobs=None)
    engine.start(replace(_work(cell, results), home="/no/such/folder"))
    (outcome,) = engine.ended()
    engine.close()
    assert outcome.error.startswith(f"{socket.gethostname()} sees no /no/such/folder: ")
    _check_noted(results, cell, "failed", outcome)


def _check_noted(results: Results, cell: Cell, state: str, outcome: Outcome) -> None:
    status = results.status(cell)
    assert status is not None
    assert (status.state, status.error) == (state, outcome.error)
    assert "\n" not in outcome.error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cpus": 0}, "--cpus-per-cell 0: need at least 1"),
        ({"gpus": 1.5}, "--gpus-per-cell 1.5: need a part of one GPU"),
        ({"gpus": -1.0}, "--gpus-per-cell -1: need a part of one GPU"),
        ({"retries": -1}, "--retries -1: need 0 or more"),
        ({"jobs": 0}, "--jobs 0: need at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    allowed: dict[str, Any] = {"address": None, "cpus": 1, "gpus": 0.0, "retries": 0, "jobs": None}
    with pytest.raises(InputError, match=said):
        RayEngine(**{**allowed, **options})
