"""The four stages of Meta-DMoE and its adaptation, as a user calls them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tta.adapters import MetaDMoE
from tta.cli import main

ROOT = Path(__file__).parent.parent
NETWORK = ("--config", "configs/model/digits_resnet.yaml")
EXPERTS = ("--config", "configs/model/digits_domain_experts.yaml")
SOURCE = ("--config", "configs/data/digits_rotated_source.yaml", "--data.image_size", "16")
STREAM = ("--config", "configs/data/digits_rotated.yaml", "--data.image_size", "16")
TINY = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1")
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu")
GROUPS = '[["0", "15"], ["30", "45"], ["60", "75"]]'
META = (*SOURCE, "--config", "configs/training/meta_distillation.yaml", *EXPERTS)


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def fit(folder: Path, *words: str) -> str:
    summary = ("--trainer.enable_model_summary", "false", "--trainer.default_root_dir", str(folder))
    assert main(["fit", *words, *TINY, *QUIET, *summary]) == 0
    return str(folder / "weights.safetensors")


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weights of every stage."""
    folder = tmp_path_factory.mktemp("meta_dmoe")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        student = fit(folder / "student", *SOURCE, *NETWORK)
        groups = ("[0, 15]", "[30, 45]", "[60, 75]")
        experts = [
            fit(folder / f"expert{number}", *SOURCE, *NETWORK, "--data.angles", group, "--model.weights", student)
            for number, group in enumerate(groups)
        ]
        files = ("--model.backbone.student_weights", student)
        files += ("--model.backbone.expert_weights", f"[{', '.join(experts)}]")
        aggregator = fit(
            folder / "aggregator", *SOURCE, "--config", "configs/training/aggregator.yaml", *EXPERTS, *files
        )
        meta = fit(folder / "meta", *META, "--model.weights", aggregator, "--model.groups", GROUPS)
    return {"student": student, "expert": experts[2], "aggregator": aggregator, "meta": meta}


def test_every_stage_takes_over_the_one_before(stages: dict[str, str]) -> None:
    student, expert = load_file(stages["student"]), load_file(stages["expert"])
    aggregator, meta = load_file(stages["aggregator"]), load_file(stages["meta"])
    assert all(torch.equal(tensor, aggregator[f"student.{name}"]) for name, tensor in student.items())
    assert all(torch.equal(tensor, aggregator[f"experts.2.{name}"]) for name, tensor in expert.items())
    values = {name: tensor for name, tensor in meta.items() if not name.endswith("num_batches_tracked")}
    changed = {name.split(".")[0] for name, tensor in values.items() if not torch.equal(tensor, aggregator[name])}
    assert changed == {"student", "aggregator"}


def adapt(folder: Path, weights: str, *words: str) -> int:
    parts = (*STREAM, *EXPERTS, "--config", "configs/adapter/metadmoe.yaml", "--model.weights", weights)
    small = ("--data.domains", '["90", "120"]', "--data.samples_per_domain", "40", "--data.batch_size", "8")
    few = ("--trainer.limit_val_batches", "0", "--trainer.default_root_dir", str(folder))
    return main(["adapt", *parts, *small, *few, *QUIET, *words])


def test_one_step_per_domain(stages: dict[str, str], tmp_path: Path) -> None:
    assert adapt(tmp_path, stages["meta"]) == 0
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    head, rows = lines[0].split(","), [line.split(",") for line in lines[1:]]
    # Three batches of 8 fill the support of 24; the count starts again at the second domain.
    column = head.index("adapter/steps_taken")
    assert [float(row[column]) for row in rows] == [0, 0, 1, 1, 1, 0, 0, 1, 1, 1]
    gathered = head.index("adapter/support_images")
    assert [float(row[gathered]) for row in rows] == [8, 16, 0, 0, 0, 8, 16, 0, 0, 0]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["adapter"] == "MetaDMoE"
    assert summary["samples"] == 80


@pytest.mark.parametrize("stop", [2, 4, 7])
@pytest.mark.usefixtures("pages_without_figures")
def test_resumed_equals_uninterrupted(
    stages: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    often = ("--trainer.callbacks+=tta.callbacks.BatchCheckpoint", "--trainer.callbacks.every_n_batches", "1")
    assert adapt(tmp_path / "whole", stages["meta"], *often) == 0
    original, calls = MetaDMoE.adapt, []

    def interrupted(self: MetaDMoE, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > stop:
            raise InterruptedError
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(MetaDMoE, "adapt", interrupted)
        with pytest.raises(InterruptedError):
            adapt(tmp_path / "cut", stages["meta"], *often)
    assert adapt(tmp_path / "cut", stages["meta"], *often, "--ckpt_path", "last") == 0
    for name in ("predictions.csv", "metrics.csv"):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "whole" / name).read_text()


@pytest.mark.usefixtures("pages_without_figures")
def test_episodic_takes_a_step_on_every_batch(stages: dict[str, str], tmp_path: Path) -> None:
    words = ("--model.protocol", "episodic", "--model.adapter.support", "null", "--data.boundaries", "hidden")
    assert adapt(tmp_path, stages["meta"], *words) == 0
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("adapter/steps_taken")
    assert {float(line.split(",")[column]) for line in lines[1:]} == {1.0}


BAD_ADAPTATION = {
    "support larger than the domain": (
        ("--model.adapter.support", "41"),
        "MetaDMoE learns from 41 samples of a domain and domain '90' has 40",
    ),
    "support larger than an episodic batch": (
        ("--model.protocol", "episodic"),
        "MetaDMoE learns from 24 samples and protocol episodic gives it batches of 8",
    ),
    "weights of a network without experts": (("--model.weights", "{student}"), "does not fit DomainExperts: "),
    "a network without experts": (
        (*NETWORK, "--model.weights", "{student}"),
        "TimmClassifier has no experts, aggregator, student",
    ),
    "another class count": (("--model.backbone.student.num_classes", "7"), "check the class count"),
    "heads": (("--model.backbone.heads", "7"), "heads=7: must divide the 96 features of an expert; choose from 1, 2"),
    "no support": (("--model.adapter.support", "0"), "support=0, steps=1: need both >= 1"),
}


@pytest.mark.parametrize("case", sorted(BAD_ADAPTATION))
def test_adaptation_that_cannot_work(
    case: str, stages: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = BAD_ADAPTATION[case]
    assert adapt(tmp_path, stages["meta"], *(word.format(**stages) for word in words)) == 2
    assert message in capsys.readouterr().err


BAD_TRAINING = {
    "one domain": (("--data.angles", "[30]"), "the data has one training domain, '30'"),
    "missing domain": (("--model.groups", '[["0"], ["30", "45"], ["60", "75"]]'), "groups: missing: 15"),
    "number of groups": (("--model.groups", '[["0", "15"], ["30", "45", "60", "75"]]'), "2 groups for the model's 3"),
    "mixed batches": (("--data.batches", "mixed"), "mixes domains: give the data module batches=one_domain"),
    "support": (("--model.support", "64"), "support=64: leaves no query in a batch of 64"),
    "small domains": (("--data.batch_size", "1000", "--model.support", "900"), "'0' has 898 to train on"),
    "plain network": (("--model.backbone", "models.CifarResNet"), "CifarResNet has no experts"),
}


@pytest.mark.parametrize("case", sorted(BAD_TRAINING))
def test_meta_training_that_cannot_work(
    case: str, stages: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = BAD_TRAINING[case]
    given = ("--model.weights", stages["aggregator"], "--model.groups", GROUPS)
    own = (*(word.format(**stages) for word in words), "--trainer.default_root_dir", str(tmp_path))
    assert main(["fit", *META, *given, *TINY, *QUIET, *own]) == 2
    assert message in capsys.readouterr().err
