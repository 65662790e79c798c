"""The folder of results."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tta.errors import InputError
from tta.matrix import Cell, Results

CELL = Cell("cells/bn/mixed/tent/seed0", "adapt", ("--model.weights", "{results}/sources/bn/weights.safetensors"))


def test_a_cell_from_start_to_end(tmp_path: Path) -> None:
    results = Results(tmp_path)
    assert results.status(CELL) is None
    words = results.begin(CELL)
    folder = results.path(CELL)
    weights = str(tmp_path / "sources/bn/weights.safetensors")
    assert words == ["--model.weights", weights, "--trainer.default_root_dir", str(folder)]
    assert json.loads((folder / "cell.json").read_text()) == {"command": "adapt", "words": words}
    assert not results.finished(CELL)
    (folder / "checkpoints").mkdir()
    results.end(CELL)
    assert results.finished(CELL)
    assert not (folder / "checkpoints").exists()
    status = results.status(CELL)
    assert status is not None
    assert status.attempts == 1


def left_behind(folder: Path) -> None:
    """What an attempt left: a row, and a checkpoint."""
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"epoch": 0}, folder / "checkpoints" / "last.ckpt")
    (folder / "metrics.csv").write_text("step\n")


@pytest.mark.parametrize("state", ["running", "died", "failed", "not started"])
def test_what_an_attempt_left_is_gone_on_with(state: str, tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.begin(CELL)
    left_behind(results.path(CELL))
    results.write(CELL, state)
    assert results.begin(CELL)[-2:] == ["--ckpt_path", "last"]
    assert (results.path(CELL) / "metrics.csv").exists()
    assert results.status(CELL).attempts == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("fault", ["checkpoint", "configuration", "nothing"])
def test_what_cannot_be_gone_on_with_is_removed(fault: str, tmp_path: Path) -> None:
    results, cell = Results(tmp_path), CELL
    results.begin(cell)
    folder = results.path(cell)
    if fault == "nothing":
        (folder / "summary.json").write_text("{}")
    else:
        left_behind(folder)
    results.write(cell, "failed", "made up")
    if fault == "checkpoint":
        (folder / "checkpoints" / "last.ckpt").write_text("torn")
    if fault == "configuration":
        cell = replace(CELL, words=("--model.adapter", "SAR"))
    assert "--ckpt_path" not in results.begin(cell)
    assert sorted(path.name for path in folder.iterdir()) == ["cell.json", "status.json"]


def test_training_that_was_killed_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    results, cell = Results(tmp_path), Cell("sources/bn", "fit", ())
    results.begin(cell)
    (results.path(cell) / "metrics.csv").write_text("epoch\n")
    assert "--ckpt_path" not in results.begin(cell)
    assert not (results.path(cell) / "metrics.csv").exists()


def test_results_of_another_matrix_are_left_alone(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    results.check([CELL])
    results.begin(CELL)
    results.check([CELL, Cell("another", "adapt", ())])
    changed = replace(CELL, words=("--model.adapter", "SAR"))
    with pytest.raises(InputError, match=r"tent/seed0 was run with another configuration: choose another --output"):
        results.check([changed])
    results.write(CELL, "failed", "no such adapter")
    results.check([changed])
    with pytest.raises(InputError, match=r"results holds something else, or another matrix' results"):
        results.check([Cell("cells/gn/mixed/tent/seed0", "adapt", ())])


def test_a_torn_status_is_said_in_one_line(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.begin(CELL)
    (results.path(CELL) / "status.json").write_text("{")
    with pytest.raises(InputError, match=r"status\.json cannot be read .*take its folder away"):
        results.status(CELL)


def test_a_skeleton_of_another_command_that_just_starts_is_no_reason_to_refuse(tmp_path: Path) -> None:
    results = Results(tmp_path)
    with results.locked(CELL):
        results.check([Cell("cells/gn/mixed/tent/seed0", "adapt", ())])
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="holds something else"):
        results.check([CELL])
