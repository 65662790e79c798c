"""A sweep of wandb, each run of which is a cell."""

from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps import utils as wandb_sweeps

from tta.cli import main
from tta.errors import InputError
from tta.matrix import Results, plan, read_matrix
from tta.matrix.sweep import write_sweep

ROOT = Path(__file__).parents[2]
MATRIX = {
    "config": ["configs/data/digits.yaml", "configs/trainer/cpu.yaml"],
    "options": {"data.samples_per_domain": 12, "data.domains": ["contrast"], "data.batch_size": 6},
    "adapters": {"bnstats": "configs/adapter/bnstats.yaml"},
    "streams": {"continual": "configs/stream/continual.yaml"},
}


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def _matrix_file(folder: Path, model: object) -> Path:
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump({**MATRIX, "models": {"resnet": model}}))
    return file


def _words_of_an_agent(sweep: dict[str, object], cell: str) -> list[str]:
    """What an agent of wandb runs for a value of the grid, by wandb's own functions."""
    values = {
        **wandb_sweeps.create_sweep_command_args({"args": {"cell": {"value": cell}}}),
        "env": ["/usr/bin/env"],
        "interpreter": ["python"],
        "program": [sweep["program"]],
    }
    words: list[str] = []
    for word in wandb_sweeps.create_sweep_command(list(sweep["command"])):  # type: ignore[call-overload]
        words += values[word[2:-1]] if word.startswith("${") else [word]
    return words


@pytest.mark.usefixtures("pages_without_figures")
def test_each_run_of_an_agent_is_a_cell(tmp_path: Path) -> None:
    matrix = _matrix_file(tmp_path, "configs/model/digits_resnet.yaml")
    cells = plan(read_matrix(matrix))
    results = Results(tmp_path / "results")
    write_sweep(tmp_path / "sweep.yaml", matrix, results.folder, cells)
    sweep = wandb_sweeps.load_sweep_config(str(tmp_path / "sweep.yaml"))
    assert sweep is not None
    assert sweep["method"] == "grid"
    names = sweep["parameters"]["cell"]["values"]
    assert names == [cell.name for cell in cells]
    words = _words_of_an_agent(sweep, names[-1])
    assert words[:4] == ["/usr/bin/env", "python", "-m", "tta"]
    assert main(words[4:]) == 0
    assert all(results.finished(cell) for cell in cells), "the frozen source model that the adapter needs comes along"


def test_a_source_model_that_is_trained_has_no_run_of_its_own(tmp_path: Path) -> None:
    fit = {"config": ["configs/data/digits_source.yaml", "configs/model/digits_resnet.yaml"]}
    matrix = _matrix_file(tmp_path, {"config": "configs/model/digits_resnet.yaml", "fit": fit})
    cells = plan(read_matrix(matrix))
    write_sweep(tmp_path / "sweep.yaml", matrix, tmp_path / "results", cells)
    sweep = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    assert cells[0].command == "fit"
    assert sweep["parameters"]["cell"]["values"] == [cell.name for cell in cells[1:]]


def test_another_file_is_not_overwritten(tmp_path: Path) -> None:
    matrix = _matrix_file(tmp_path, "configs/model/digits_resnet.yaml")
    cells = plan(read_matrix(matrix))
    file = tmp_path / "folder" / "sweep.yaml"
    write_sweep(file, matrix, tmp_path / "results", cells)
    text = file.read_bytes()
    write_sweep(file, matrix, tmp_path / "results", cells)
    assert file.read_bytes() == text
    with pytest.raises(InputError, match=r"sweep\.yaml holds something else: choose another file"):
        write_sweep(file, matrix, tmp_path / "elsewhere", cells)
    assert file.read_bytes() == text
