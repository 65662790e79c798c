"""From source training with instance-aware batch normalisation to NOTE, on the command line."""

import json
from pathlib import Path

import pytest

from tta.cli import main

ROOT = Path(__file__).parent.parent
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false")
NETWORK = ("--config", "configs/model/digits_resnet_iabn.yaml")


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def fit(folder: Path) -> Path:
    limits = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "8", "--trainer.limit_val_batches", "1")
    words = ("--config", "configs/data/digits_source.yaml", *NETWORK, *limits, *QUIET)
    assert main(["fit", *words, "--trainer.default_root_dir", str(folder)]) == 0
    return folder / "weights.safetensors"


def adapt(weights: Path, folder: Path, *network: str, batch_size: int = 16) -> dict:
    parts = [word for part in ("data/digits", "adapter/note") for word in ("--config", f"configs/{part}.yaml")]
    images = ("--data.domains", "[contrast]", "--data.samples_per_domain", "70", "--data.batch_size", str(batch_size))
    small = ("--model.adapter.init_args.memory", "8", "--model.adapter.init_args.period", "8")
    own = ("--model.weights", str(weights), "--trainer.default_root_dir", str(folder), "--trainer.accelerator", "cpu")
    limits = ("--trainer.limit_val_batches", "1")
    assert main(["adapt", *parts, *network, *images, *small, *QUIET, *own, *limits]) == 0
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.usefixtures("pages_without_figures")
def test_train_with_iabn_then_adapt(tmp_path: Path) -> None:
    weights = fit(tmp_path / "source")
    summary = adapt(weights, tmp_path / "run", *NETWORK)
    assert (summary["adapter"], summary["samples"]) == ("NOTE", 70)
    assert summary["parameter_drift"] > 0
    assert "models.with_iabn" in (tmp_path / "run" / "config.yaml").read_text(), "the run can be repeated"
    one_by_one = adapt(weights, tmp_path / "one", *NETWORK, batch_size=1)
    assert one_by_one["accuracy"] == pytest.approx(summary["accuracy"])
    # Weights are those of a network with batch normalisation, so they load into the plain one too.
    plain = adapt(weights, tmp_path / "plain", "--config", "configs/model/digits_resnet.yaml")
    assert plain["samples"] == 70
