"""A small run of the command line, whole and interrupted in many ways."""

import csv
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tta.callbacks import Recorder
from tta.cli import main

ROOT = Path(__file__).parents[2]
WORDS = (
    *("--config", "configs/data/digits.yaml", "--config", "configs/model/digits_resnet.yaml"),
    *("--config", "configs/adapter/tent.yaml", "--data.samples_per_domain", "40"),
    *("--data.domains", "[contrast, invert]", "--data.batch_size", "10", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false", "--trainer.callbacks", "tta.callbacks.BatchCheckpoint"),
    *("--trainer.callbacks.every_n_batches", "2"),
)
"""Eight batches, a checkpoint after every second."""

Fault = Callable[[int, Path], None]


def run(folder: Path, *words: str) -> int:
    return main(["adapt", *WORDS, "--trainer.default_root_dir", str(folder), *words])


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch, pages_without_figures: None) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def adapt(tmp_path: Path) -> Callable[..., int]:
    """Run ``tta adapt`` in a folder of this test."""
    return lambda *words: run(tmp_path / "run", *words)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert run(folder) == 0
    return folder


def _child(folder: Path, fault: Fault) -> None:
    torch.set_num_threads(1)
    start = Recorder.on_train_batch_start

    def and_fault(self: Recorder, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        fault(batch_idx, folder)
        start(self, trainer, pl_module, batch, batch_idx)

    Recorder.on_train_batch_start = and_fault  # type: ignore[method-assign]
    with (folder.parent / "stderr").open("w") as sys.stderr:
        status = run(folder)
    os._exit(status)


@pytest.fixture
def interrupted(tmp_path: Path) -> Callable[[Fault], tuple[int | None, list[str]]]:
    """Run in a process of its own with a fault at the start of a batch; its status, and what it said of the error."""

    def go(fault: Fault) -> tuple[int | None, list[str]]:
        child = multiprocessing.get_context("fork").Process(target=_child, args=(tmp_path / "run", fault))
        child.start()
        child.join()
        said = (tmp_path / "stderr").read_text().splitlines()
        return child.exitcode, [line for line in said if line.startswith(("tta: error", "Traceback"))]

    return go


@pytest.fixture
def complete() -> Callable[[Path], tuple[int, int, int]]:
    """Check that what a run wrote is whole: batches in the two tables and in the checkpoint."""

    def check(folder: Path) -> tuple[int, int, int]:
        tables = []
        for name in ("predictions.csv", "metrics.csv"):
            text = (folder / name).read_text()
            rows = list(csv.reader(text.splitlines()))
            assert text.endswith("\n")
            assert {len(row) for row in rows} == {len(rows[0])}
            tables.append(len(rows) - 1)
        checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert [file.name for file in (folder / "checkpoints").iterdir()] == ["last.ckpt"]
        return tables[0] // 10, tables[1], int(checkpoint["online_adaptation"][0]["monitor"]["counts"][0]) // 10

    return check


@pytest.fixture
def goes_on(adapt: Callable[..., int], tmp_path: Path, whole: Path) -> Callable[[], None]:
    """Check that the run goes on to what it would have been."""

    def check() -> None:
        assert adapt("--ckpt_path", "last") == 0
        for name in ("predictions.csv", "metrics.csv"):
            assert (tmp_path / "run" / name).read_text() == (whole / name).read_text()

    return check
