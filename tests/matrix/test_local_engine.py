"""Cells in processes of this machine."""

import fcntl
import time
from pathlib import Path

import pytest

from tta.errors import InputError
from tta.matrix import Cell, Results, Work
from tta.matrix.local_engine import LocalEngine

ROOT = Path(__file__).parents[2]


def work(folder: Path, name: str, hold: str) -> Work:
    """A cell that waits at its third batch."""
    (folder / f"hold-{name}").write_text(hold)
    words = ("--config", "configs/model/digits_resnet.yaml", "--model.adapter", "Source", "--data.hold")
    stream = (
        "--data",
        "tests.matrix.held_digits.HeldDigits",
        "--data.samples_per_domain",
        "20",
        "--data.batch_size",
        "8",
    )
    return Work(Cell(name, "adapt", (*stream, *words, str(folder / f"hold-{name}"))), str(folder), str(ROOT), 1)


def test_processes_that_die_and_processes_that_are_stopped(tmp_path: Path) -> None:
    engine, results = LocalEngine(2), Results(tmp_path)
    dies = work(tmp_path, "dies", "kill")
    waits = work(tmp_path, "waits", "")
    # A reason of an earlier attempt must not be taken for that of this one.
    results.begin(dies.cell)
    results.write(dies.cell, "failed", "an earlier reason")
    try:
        engine.start(dies)
        engine.start(waits)
        (outcome,) = engine.ended()
        assert outcome.name == "dies"
        assert outcome.error == "its process died (killed by SIGKILL): if memory ran out, use fewer --jobs"
        status = results.status(dies.cell)
        assert status is not None
        assert (status.state, status.attempts) == ("died", 2)
        while not (tmp_path / "waits" / "metrics.csv").exists():
            time.sleep(0.01)
    finally:
        engine.close()
    with (tmp_path / "waits" / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which the process held
    assert results.status(waits.cell).state == "running"  # type: ignore[union-attr]


def test_at_least_one_job() -> None:
    with pytest.raises(InputError, match="--jobs 0: need at least 1"):
        LocalEngine(0)
