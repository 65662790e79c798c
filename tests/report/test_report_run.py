"""Reading run folders."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tta.errors import InputError
from tta.report.page import write_report
from tta.report.run import Run, read_run

FILES = ("config.yaml", "metrics.csv", "timing.csv", "predictions.csv", "summary.json")


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders["healthy"], tmp_path / "run"))


def test_columns_have_one_value_per_batch_and_per_sample(folders: dict[str, Path]) -> None:
    run = read_run(folders["healthy"])
    assert len(run.domains) == 80
    assert {values.shape for values in run.metrics.values()} == {(80,)}
    assert {values.shape for values in run.predictions.values()} == {(2560,)}
    assert "domain" not in run.metrics
    assert run.edges[0] == 0
    assert run.edges[-1] == 2560
    assert run.config.startswith("model:")


def test_empty_cells_are_nan_and_absent_columns_all_nan(folders: dict[str, Path]) -> None:
    run = read_run(folders["unlabelled"])
    assert np.isnan(run.metrics["window_accuracy"]).all()
    assert np.isnan(run.column("no_such_column")).all()
    assert np.isnan(read_run(folders["no_source"]).predictions["source_prediction"]).all()


def test_number_reads_null_nan_and_missing_as_unknown(folders: dict[str, Path]) -> None:
    run = read_run(folders["healthy"])
    odd = Run(**{**vars(run), "summary": {"a": None, "b": {"c": float("nan"), "d": True}, "e": "text", "f": 2}})
    assert [odd.number(*keys) for keys in (["a"], ["b", "c"], ["e"], ["f", "g"], ["none"])] == [None] * 5
    assert odd.number("b", "d") == 1
    assert odd.number("f") == 2
    assert odd.text("a") == "unknown"


def test_missing_folder_names_the_maker(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run folder at '.*nowhere'.*`tta adapt`"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize("name", FILES[1:])
def test_missing_file_is_named_with_its_maker(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"has no {name}: .*`tta adapt`"):
        read_run(folder)


@pytest.mark.parametrize("name", FILES)
def test_binary_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read"):
        read_run(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("summary.json", "{", "[", "is not JSON"),
        ("metrics.csv", "samples", "sample", "lacks the column.* samples"),
        ("predictions.csv", "confidence", "trust", "lacks the column.* confidence"),
        ("timing.csv", "\n0,0.4", "\n0,fast", "row 2, column seconds: 'fast' is not a number"),
        ("timing.csv", "\n0,0.4", "\n0.4", "row 2 has 3 cells, not 4"),
        ("metrics.csv", "\n0,32,", "\n0,,", "row without a sample count"),
    ],
)
def test_damage_is_located(folder: Path, name: str, old: str, new: str, message: str) -> None:
    text = (folder / name).read_text().replace("\r\n", "\n")
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


def test_summary_that_is_no_object_is_refused(folder: Path) -> None:
    (folder / "summary.json").write_text("[1]")
    with pytest.raises(InputError, match="holds a list"):
        read_run(folder)


def test_run_without_a_batch_is_refused(folder: Path) -> None:
    header = (folder / "metrics.csv").read_text().splitlines()[0]
    (folder / "metrics.csv").write_text(header + "\n")
    with pytest.raises(InputError, match="holds no batch"):
        read_run(folder)


def test_domain_names_with_commas_and_newlines_survive(make_run: Callable[..., Path], tmp_path: Path) -> None:
    names = ('a,"b"', "two\nlines")
    run = read_run(make_run(tmp_path / "odd", domains=names, samples=128))
    assert set(run.domains) == set(names)
    assert set(run.prediction_domains) == set(names)


def test_run_of_a_script_needs_no_configuration(folder: Path) -> None:
    (folder / "config.yaml").unlink()
    assert read_run(folder).config == ""
    assert 'id="configuration"' not in write_report(folder).read_text()
