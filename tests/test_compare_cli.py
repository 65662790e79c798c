"""``tta compare``, as people call it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tta.cli import main
from tta.matrix import Outcome, Work, run_cell
from tta.report import read_run

ROOT = Path(__file__).parent.parent
VIT = {"name": "test_vit", "num_classes": 10, "arguments": {"img_size": 32, "patch_size": 8}}
MATRIX = {
    "title": "Two networks",
    "config": "configs/data/digits.yaml",
    "options": {
        "data.samples_per_domain": 40,
        "data.domains": ["contrast", "invert"],
        "data.batch_size": 20,
        "trainer.accelerator": "cpu",
    },
    "models": {
        "resnet": "configs/model/digits_resnet.yaml",
        "vit": {"options": {"model.backbone": {"class_path": "models.TimmClassifier", "init_args": VIT}}},
    },
    "adapters": {"bnstats": "configs/adapter/bnstats.yaml", "tent": "configs/adapter/tent.yaml"},
    "streams": {"continual": "configs/stream/continual.yaml"},
    "seeds": [3],
    "metrics": {"ece": "min"},
}
JOBS = os.cpu_count() or 1
"""As many as processors, so that each cell has one thread."""

PAGES = ("leaderboard.html", "leaderboard.csv", "cells.csv")


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("matrix") / "two.yaml"
    file.write_text(yaml.safe_dump(MATRIX, sort_keys=False))
    return file


class InThisProcess:
    """An engine that spares the start of processes."""

    def __init__(self, jobs: int) -> None:
        self.slots = jobs
        self.waiting: list[Work] = []

    def start(self, work: Work) -> None:
        self.waiting.append(work)

    def ended(self) -> list[Outcome]:
        return [run_cell(self.waiting.pop(0))]

    def close(self) -> None:
        pass


def _write_page(folder: Path) -> Path:
    page = folder / "report.html"
    page.write_text(read_run(folder).text("adapter"))
    return page


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Reports of runs, which are looked at elsewhere, are not drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tta.compare_cli.LocalEngine", InThisProcess)
        patch.setattr("tta.callbacks.report.write_report", _write_page)
        yield


@pytest.fixture(scope="module")
def whole(matrix: Path, _quick: None) -> Path:
    """Results of the matrix, uninterrupted."""
    folder = matrix.parent / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert compare(matrix, folder) == 2, "one cell cannot exist"
    return folder


def compare(matrix: Path, folder: Path, *words: str) -> int:
    return main(["compare", str(matrix), "--output", str(folder), "--jobs", str(JOBS), *words])


def attempts(folder: Path) -> dict[str, int]:
    files = sorted(folder.rglob("status.json"))
    return {str(file.parent.relative_to(folder)): json.loads(file.read_text())["attempts"] for file in files}


def test_cells_are_ordinary_runs_and_the_one_that_cannot_exist_is_told(whole: Path, matrix: Path) -> None:
    with (whole / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    failed = [row for row in rows if row["error"]]
    assert [(row["system"], row["model"]) for row in failed] == [("bnstats", "vit")]
    assert "BNStats needs batch normalisation" in failed[0]["error"]
    systems = {"source", "bnstats", "tent", "views (tent)"}
    assert {row["system"] for row in rows} == systems
    assert len(rows) == 2 + 4 + 2
    for model in ("resnet", "vit"):
        tent = whole / "cells" / model / "continual" / "tent" / "seed3"
        for name in ("config.yaml", "metrics.csv", "predictions.csv", "summary.json", "report.html", "log.txt"):
            assert (tent / name).is_file(), name
        cost = json.loads((tent / "summary.json").read_text())["cost"]["forward_equivalents_per_sample"]
        (views,) = (whole / "cells" / model / "continual").glob("views*")
        told = json.loads((views / "seed3" / "summary.json").read_text())["cost"]["forward_equivalents_per_sample"]
        assert told == pytest.approx(cost, rel=0.1), "frozen views at the cost of the adapter"
        source = json.loads((whole / "cells" / model / "continual" / "source" / "seed3" / "summary.json").read_text())
        beside = json.loads((tent / "summary.json").read_text())
        assert beside["source_accuracy"] == source["accuracy"], "the frozen source model serves all adapters"
        with (tent / "predictions.csv").open() as file:
            assert all(row["source_prediction"] for row in csv.DictReader(file))


def test_a_finished_matrix_runs_nothing_again(whole: Path, matrix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (whole / "cells").rglob("metrics.csv")}
    pages = {name: (whole / name).read_bytes() for name in PAGES}
    tries = attempts(whole)
    assert compare(matrix, whole) == 2
    assert "failed cells/resnet" not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (whole / "cells").rglob("metrics.csv")} == before
    assert {name: (whole / name).read_bytes() for name in PAGES} == pages
    again = attempts(whole)
    assert {name for name in tries if again[name] != tries[name]} == {"cells/vit/continual/bnstats/seed3"}


def test_a_killed_matrix_goes_on_and_ends_alike(whole: Path, matrix: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    words = [sys.executable, "-m", "tta", "compare", str(matrix), "--output", str(folder), "--jobs", str(JOBS)]
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, cwd=ROOT, env=path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    finished: list[str] = []
    while len(finished) < 2 and process.poll() is None:
        time.sleep(0.02)
        files = folder.rglob("status.json")
        finished = [str(file.parent) for file in files if '"finished"' in file.read_text()]
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = {name: (Path(name) / "metrics.csv").stat().st_mtime_ns for name in finished}
    assert compare(matrix, folder) == 2
    assert {name: (Path(name) / "metrics.csv").stat().st_mtime_ns for name in finished} == before
    tries = attempts(folder)
    assert all(tries[str(Path(name).relative_to(folder))] == 1 for name in finished)
    assert tries.keys() == attempts(whole).keys()
    for name in PAGES:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_it_can_be_stopped_from_the_keyboard(
    matrix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed: list[bool] = []

    class Stopped(InThisProcess):
        def ended(self) -> list[Outcome]:
            raise KeyboardInterrupt

        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr("tta.compare_cli.LocalEngine", Stopped)
    with pytest.raises(SystemExit) as stopped:
        compare(matrix, tmp_path / "stopped")
    assert stopped.value.code == 130
    assert closed
    assert "Stopped. The same command goes on in" in capsys.readouterr().out


def test_a_dry_run_lists_commands_and_runs_nothing(
    matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(matrix, tmp_path / "new", "--dry-run") == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "new").exists()
    assert "6 cells, 6 to run" in said
    assert said.count("tta adapt --config configs/data/digits.yaml") == 6
    assert "at the costs of bnstats, tent" in said


def test_a_cell_runs_alone_with_what_it_needs(matrix: Path, whole: Path, tmp_path: Path) -> None:
    assert compare(matrix, tmp_path, "--cell=cells/resnet/continual/tent/seed3") == 0
    assert sorted(attempts(tmp_path)) == [f"cells/resnet/continual/{name}/seed3" for name in ("source", "tent")]
    same = "cells/resnet/continual/tent/seed3/predictions.csv"
    assert (tmp_path / same).read_bytes() == (whole / same).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere.yaml",), "no matrix file at"),
        ((), "compare: the following arguments are required: MATRIX; see 'tta compare --help'"),
        (("MATRIX", "--cell", "cells/a"), "--cell: the matrix has no cell 'cells/a': --dry-run lists them"),
        (("MATRIX", "--engine", "slurm"), "invalid choice: 'slurm'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    words: tuple[str, ...], message: str, matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(matrix) if word == "MATRIX" else word for word in words]
    assert main(["compare", *given, *(["--output", str(tmp_path / "out")] if words else [])]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_results_of_another_matrix_are_not_touched(
    matrix: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({**MATRIX, "options": {**MATRIX["options"], "data.batch_size": 10}}))  # type: ignore[dict-item]
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    assert compare(other, copy) == 2
    assert "was run with another configuration: choose another --output" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
