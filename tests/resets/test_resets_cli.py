"""Protocols on the command line."""

import json
from pathlib import Path

import pytest

from tta.cli import main

ROOT = Path(__file__).parent.parent.parent
PARTS = ("data/digits", "model/digits_resnet", "adapter/tent")
SMALL = ("--data.samples_per_domain", "20", "--data.domains", "[contrast, invert]", "--data.batch_size", "10")
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "0")


def adapt(folder: Path, *words: str) -> int:
    files = [word for part in PARTS for word in ("--config", f"configs/{part}.yaml")]
    return main(["adapt", *files, *SMALL, *QUIET, "--trainer.default_root_dir", str(folder), *words])


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_a_class_and_its_arguments(tmp_path: Path) -> None:
    assert adapt(tmp_path / "run", "--model.protocol", "tta.resets.Periodic", "--model.protocol.every", "2") == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["protocol"], summary["resets"]) == ("Periodic(every=2)", 2)
    assert "Periodic(every=2)" in (tmp_path / "run" / "report.html").read_text()
    config = str(tmp_path / "run" / "config.yaml")
    again = ("--trainer.default_root_dir", str(tmp_path / "again"))
    assert main(["adapt", "--config", config, *again]) == 0
    files = [(tmp_path / run / "predictions.csv").read_text() for run in ("run", "again")]
    assert files[0] == files[1]


WRONG = {
    "word": (
        ("sometimes",),
        "unknown protocol 'sometimes': choose from continual, per_domain, episodic, or give a class",
    ),
    "class": (("tta.resets.Sometimes",), "unknown class 'tta.resets.Sometimes'"),
    "option": (("tta.resets.Periodic", "--model.protocol.evry", "2"), "takes no option 'evry': choose from every"),
    "type": (
        ("tta.resets.Periodic", "--model.protocol.every", "often"),
        "every: expected a value of type int, got 'often'",
    ),
    "value": (("tta.resets.Periodic", "--model.protocol.every", "0"), "tta: error: every=0: need at least 1 batch"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_stands_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = WRONG[name]
    assert adapt(tmp_path / "run", "--model.protocol", *words) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("tta: error:")]
    assert len(lines) == 1, error
    assert error.splitlines()[-1] == lines[0]
    assert message in lines[0]
    assert "Literal" not in lines[0]


def test_help_names_the_protocols(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["adapt", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for word in ("continual", "per_domain", "episodic", "Periodic", "EntropyAverage", "StochasticRestore"):
        assert word in text
