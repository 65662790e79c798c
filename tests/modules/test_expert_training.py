"""Training of experts, and the way from training to adaptation on the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules import Digits
from models import MultiExpertCifarResNet, TimmClassifier
from tta.cli import main
from tta.errors import InputError
from tta.modules import ExpertTraining

ROOT = Path(__file__).parents[2]
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false")


class Remembered(nn.Module):
    """Experts that say what is written into the image: pixel ``(0, 0, e)`` is the class of expert ``e``."""

    num_experts = 3

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def expert_logits(self, x: Tensor) -> Tensor:
        said = x[:, 0, 0, :3].round().long()
        return nn.functional.one_hot(said, 4).float() + self.bias


def trainer(folder: Path, *callbacks: Callback, **arguments: Any) -> Trainer:
    given = {"max_epochs": 2, "limit_train_batches": 3, "limit_val_batches": 1, **arguments}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **quiet, **given)


def digits(**arguments: Any) -> Digits:
    return Digits(
        **{"imbalance": "exponential", "imbalance_ratio": 10, "batch_size": 32, "image_size": 16, **arguments}
    )


def module(seed: int = 0, **arguments: Any) -> ExpertTraining:
    torch.manual_seed(seed)
    return ExpertTraining(MultiExpertCifarResNet(8, 10), **{"num_classes": 10, "tau": 1.0, **arguments})


def batches(rows: list[tuple[int, int, int, int]]) -> DataLoader[Any]:
    """Images of which the three experts say the first three numbers, and the label is the last."""
    images = torch.zeros(len(rows), 3, 4, 4)
    images[:, 0, 0, :3] = torch.tensor([row[:3] for row in rows]).float()
    return DataLoader([{"image": images, "label": torch.tensor([row[3] for row in rows])}], batch_size=None)  # type: ignore[arg-type]


def test_loss_is_the_skill_diverse_loss_of_the_data_modules_counts(tmp_path: Path) -> None:
    training, data = module(), digits()
    trainer(tmp_path, limit_train_batches=1, max_epochs=1).fit(training, data)
    counts = torch.tensor(data.class_counts)
    assert counts[0] > 5 * counts[-1]
    prior = (counts / counts.sum()).log()
    mirrored = (counts.flip(0) / counts.sum()).log()
    assert torch.allclose(training.offsets, torch.stack([0 * prior, prior, prior - mirrored]), atol=1e-4)
    batch = next(iter(data.val_dataloader()))
    logits = training.eval()(batch["image"]) + training.offsets
    by_hand = sum(nn.functional.cross_entropy(logits[:, e], batch["label"]) for e in range(3))
    training.log = lambda *_, **__: None  # type: ignore[method-assign]  there is no trainer's loop around it
    assert float(training.training_step(batch, 0)) == pytest.approx(float(by_hand.detach()), rel=1e-5)


def test_each_expert_learns_for_its_prior(tmp_path: Path) -> None:
    """On the same images the tail expert says rare classes more often than the head expert."""
    training, data = module(), digits()
    trainer(tmp_path, max_epochs=4, limit_train_batches=1.0).fit(training, data)
    images = torch.cat([batch["image"] for batch in data.test_dataloader()])
    with torch.no_grad():
        said = training.eval()(images).softmax(dim=2)[:, :, 5:].sum(dim=2).mean(dim=0)
    assert said[0] < said[1] < said[2]


def test_accuracies_of_mean_experts_and_groups(tmp_path: Path) -> None:
    training = ExpertTraining(Remembered(), class_counts=[40, 30, 20, 10], num_classes=4)
    loader = batches([(0, 0, 1, 0), (0, 0, 0, 0), (1, 2, 1, 1), (2, 0, 0, 1), (3, 3, 2, 3)])
    (figures,) = trainer(tmp_path).test(training, loader, verbose=False)
    assert figures["test/accuracy"] == pytest.approx(4 / 5)
    assert [figures[f"test/accuracy_expert_{e}"] for e in (1, 2, 3)] == pytest.approx([4 / 5, 3 / 5, 2 / 5])
    # Thirds of four classes: 0 and 1; 2, of which no image was shown; 3.
    assert figures["test/accuracy_many"] == pytest.approx((1 + 1 / 2) / 2)
    assert figures["test/accuracy_few"] == pytest.approx(1.0)
    assert "test/accuracy_medium" not in figures


def test_groups_by_thresholds_leave_out_what_is_empty(tmp_path: Path) -> None:
    training = ExpertTraining(Remembered(), class_counts=[400, 300, 200, 150], thresholds=(20, 100), num_classes=4)
    (figures,) = trainer(tmp_path).test(training, batches([(0, 0, 0, 0), (1, 1, 1, 2)]), verbose=False)
    assert figures["test/accuracy_many"] == pytest.approx(0.5)
    assert not any("few" in name or "medium" in name for name in figures)
    assert all(value == value for value in figures.values())


def test_figures_of_an_epoch_are_of_that_epoch_alone(tmp_path: Path) -> None:
    training = ExpertTraining(Remembered(), class_counts=[4, 3, 2, 1], num_classes=4)
    host = trainer(tmp_path)
    (wrong,) = host.test(training, batches([(1, 1, 1, 0)]), verbose=False)
    (right,) = host.test(training, batches([(0, 0, 0, 0)]), verbose=False)
    assert (wrong["test/accuracy"], right["test/accuracy"]) == (0, 1)


def test_default_optimiser_is_the_published_one() -> None:
    optimizer = module().configure_optimizers()
    group = optimizer.param_groups[0]
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (0.1, 0.9, True, 5e-4)


class StopAfter(Callback):
    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            raise InterruptedError


def test_resumed_training_equals_uninterrupted_training(tmp_path: Path) -> None:
    schedule = {"lr_scheduler": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)}
    whole = module(**schedule)
    trainer(tmp_path / "whole").fit(whole, digits(augment=True))
    cut = trainer(tmp_path / "cut", StopAfter())
    with pytest.raises(InterruptedError):
        cut.fit(module(**schedule), digits(augment=True))
    (checkpoint,) = (tmp_path / "cut").rglob("*.ckpt")
    resumed = module(seed=5, **schedule)
    trainer(tmp_path / "resumed").fit(resumed, digits(augment=True), ckpt_path=checkpoint, weights_only=False)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExpertTraining(TimmClassifier("test_resnet")), "TimmClassifier has no experts: give a backbone with"),
        (lambda: module(priors=["source", "uniform"]), "the backbone has 3 experts and there are 2 priors"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("arguments", "data", "message"),
    [
        ({"class_counts": [1] * 9 + [0]}, {}, "every class needs one training image at least"),
        ({"class_counts": [1] * 9}, {}, "class_counts: 9 numbers for 10 classes; give one for each"),
        ({}, {"imbalance_ratio": 1000}, "lower the data's imbalance_ratio"),
        ({"priors": ["source", "uniform", "mirror"]}, {}, "target prior 'mirror'"),
        ({"tau": -1.0}, {}, "tau=-1"),
    ],
)
def test_counts_and_priors_that_do_not_fit_are_refused(
    tmp_path: Path, arguments: dict[str, Any], data: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        trainer(tmp_path).fit(module(**arguments), digits(**data))


def test_missing_class_counts_are_named(tmp_path: Path) -> None:
    loader = DataLoader([{"image": torch.zeros(2, 3, 16, 16), "label": torch.zeros(2)}], batch_size=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="class counts are missing: give class_counts, or a data module"):
        trainer(tmp_path).fit(module(), loader)


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    training = ExpertTraining(MultiExpertCifarResNet(8, 7), num_classes=10)
    with pytest.raises(InputError, match=r"of shape \(32, 3, 7\) for 3 experts and 10 classes: set the backbone's"):
        trainer(tmp_path, num_sanity_val_steps=0).fit(training, digits())


# ---- from training to adaptation ------------------------------------------------------------------------------------


NETWORK = ("--model.backbone.norm", "group")
"""Learns something visible in four steps, unlike running statistics."""


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        parts = ("training/experts", "data/digits_long_tailed_source", "model/digits_experts")
        limits = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "4")
        assert (
            main(["fit", *configs(*parts), *NETWORK, *limits, *QUIET, "--trainer.default_root_dir", str(folder)]) == 0
        )
    return folder


def configs(*parts: str) -> list[str]:
    return [word for part in parts for word in ("--config", f"configs/{part}.yaml")]


def adapt(fitted: Path, folder: Path, *words: str) -> int:
    parts = configs("data/digits", "stream/long_tailed", "model/digits_experts", "adapter/sade", "trainer/cpu")
    images = ("--data.domains", "[contrast]", "--data.samples_per_domain", "150", "--data.batch_size", "8")
    ratio = ("--data.labels.ratio", "5")
    weights = ("--model.weights", str(fitted / "weights.safetensors"))
    run = ("--trainer.default_root_dir", str(folder), "--trainer.limit_val_batches", "0")
    return main(["adapt", *parts, *NETWORK, *images, *ratio, *weights, *run, *QUIET, *words])


VIEWS = ("--model.adapter.views", "tta.adapters.views.ImageNetViews", "--model.adapter.views.size", "32")
MODES = {"online": VIEWS, "transductive": ("--model.adapter.transductive.epochs", "2")}


@pytest.mark.parametrize("mode", MODES)
def test_command_line_from_training_to_resumed_adaptation(
    mode: str, fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert adapt(fitted, tmp_path / "whole", *MODES[mode]) == 0
    head, *lines = (tmp_path / "whole" / "metrics.csv").read_text().splitlines()
    column = head.split(",").index("adapter/weight_3")
    weights = [float(line.split(",")[column]) for line in lines]
    assert len(weights) >= 5
    assert (len(set(weights)) == 1) == (mode == "transductive")
    assert weights[-1] != pytest.approx(1 / 3, abs=1e-6)
    assert (tmp_path / "whole" / "report.html").is_file()

    cut = ("--trainer.callbacks+", "tta.callbacks.BatchCheckpoint", "--trainer.callbacks.every_n_batches", "2")
    with monkeypatch.context() as patch:
        patch.setattr("tta.modules.OnlineAdaptation.training_step", stopped_after(3))
        with pytest.raises(InterruptedError):
            adapt(fitted, tmp_path / "cut", *MODES[mode], *cut)
    assert adapt(fitted, tmp_path / "cut", *MODES[mode], *cut, "--ckpt_path", "last") == 0
    for name in ("predictions.csv", "metrics.csv"):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "whole" / name).read_text()


def stopped_after(number: int) -> Callable[..., Any]:
    from tta.modules import OnlineAdaptation

    step = OnlineAdaptation.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if batch_idx == number:
            raise InterruptedError
        return step(self, batch, batch_idx)

    return training_step


def test_a_plain_network_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    parts = configs("data/digits", "model/digits_resnet", "adapter/sade", "trainer/cpu")
    assert main(["adapt", *parts, *QUIET, "--trainer.default_root_dir", str(tmp_path)]) == 2
    assert "TimmClassifier has no experts: SADE needs a model with num_experts" in capsys.readouterr().err


@pytest.mark.usefixtures("pages_without_figures")
def test_weights_and_checkpoints_of_other_networks_are_refused_in_one_line(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert adapt(fitted, tmp_path / "two", "--model.backbone.num_experts", "2") == 2
    assert "does not fit MultiExpertCifarResNet: it has 'experts.2', one more" in capsys.readouterr().err
    assert adapt(fitted, tmp_path / "three") == 0
    (checkpoint,) = (tmp_path / "three").rglob("*.ckpt")
    four = ("--model.backbone.num_experts", "4", "--model.weights", "null", "--ckpt_path", str(checkpoint))
    capsys.readouterr()
    assert adapt(fitted, tmp_path / "four", *four) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tta: error")]
    assert "the checkpoint is of another network or adapter (Missing key(s) in state_dict: " in said
    assert said.endswith("--ckpt_path resumes the very same run; source weights go to --model.weights")


def test_transductive_mode_refuses_protocols_that_forget(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert adapt(fitted, tmp_path, *MODES["transductive"], "--model.protocol", "per_domain") == 2
    assert "SADE sees the whole stream before it predicts" in capsys.readouterr().err
