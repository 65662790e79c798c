"""One cell, run in this process."""

import json
import os
import sys
from pathlib import Path

import pytest

import tta.lightning_cli
from tta.matrix import Cell, Results, Work, run_cell

CELL = Cell("cells/bn/mixed/tent/seed0", "adapt", ("--data.seed", "0"))


def run(folder: Path) -> str:
    return run_cell(Work(CELL, str(folder), str(folder), 1)).error


def test_further_processes_of_a_cell_get_its_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def adapt(words: list[str]) -> None:
        seen.append(list(sys.argv))
        os.environ["TTA_RUN_FOLDER"] = "of this run"
        sys.stdout.write("said by the run\n")

    monkeypatch.setattr(tta.lightning_cli, "adapt", adapt)
    before = list(sys.argv), Path.cwd()
    assert run(tmp_path) == ""
    assert (list(sys.argv), Path.cwd()) == before
    assert "TTA_RUN_FOLDER" not in os.environ
    (words,) = seen
    assert Path(words[0]).name == "__main__.py"
    assert words[1:] == ["adapt", *json.loads((tmp_path / CELL.name / "cell.json").read_text())["words"]]
    assert run(tmp_path) == ""
    assert len(seen) == 1, "what has finished is not run again"


def test_whatever_a_cell_fails_of_is_one_line_and_the_rest_is_in_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def adapt(words: list[str]) -> None:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr(tta.lightning_cli, "adapt", adapt)
    assert run(tmp_path) == "ZeroDivisionError: first line"
    status = Results(tmp_path).status(CELL)
    assert status is not None
    assert (status.state, status.error) == ("failed", "ZeroDivisionError: first line")
    log = (tmp_path / CELL.name / "log.txt").read_text()
    assert "Traceback" in log
    assert "second line" in log
