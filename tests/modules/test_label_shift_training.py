"""Training of the label-shift adapter's network, and the way from there to adaptation on the command line."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning import Callback, LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

import models
import tta
from datamodules import Digits
from tta.adapters import LabelShiftNetwork
from tta.adapters.label_shift_source import SourceFigures
from tta.cli import main
from tta.companion import Companion
from tta.modules import LabelShiftTraining

ROOT = Path(__file__).parent.parent.parent
CENTRES = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, -2.0]])


class Blobs(LightningDataModule):
    """Three Gaussian classes in the plane, long-tailed in training."""

    num_classes = 3

    def __init__(self, counts: tuple[int, ...] = (400, 80, 16), heldout: tuple[int, ...] = (100, 100, 100)) -> None:
        super().__init__()
        self.class_counts = list(counts)
        self.parts = [self.draw(numbers, seed) for seed, numbers in enumerate((counts, heldout))]

    def draw(self, counts: tuple[int, ...], seed: int) -> list[dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
        x = CENTRES[labels] + 1.5 * torch.randn(len(labels), 2, generator=generator)
        return [{"image": row, "label": label} for row, label in zip(x, labels, strict=True)]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.parts[0], batch_size=64)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.parts[1], batch_size=64)  # type: ignore[arg-type]


class Tailless(Blobs):
    class_counts = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.class_counts = None


def bayes_backbone(counts: list[int]) -> nn.Sequential:
    """The features are the images; the head is right for the source prior."""
    head = nn.Linear(2, 3)
    head.weight.data = CENTRES / 1.5**2
    prior = torch.tensor(counts).float()
    head.bias.data = (prior / prior.sum()).log() - CENTRES.square().sum(1) / (2 * 1.5**2)
    return nn.Sequential(nn.Identity(), head)


def trainer(folder: Path, epochs: int, *callbacks: Callback) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(default_root_dir=folder, max_epochs=epochs, accelerator="cpu", callbacks=list(callbacks), **quiet)


def fit(folder: Path, epochs: int = 5, data: Blobs | None = None, **arguments: Any) -> LabelShiftTraining:
    pl.seed_everything(0, verbose=False)
    data = data or Blobs()
    module = LabelShiftTraining(bayes_backbone([400, 80, 16]), num_classes=3, lr=0.01, **arguments)
    trainer(folder, epochs).fit(module, data)
    return module


@pytest.mark.parametrize("statistics", ["source", "batch"])
def test_learns_what_bayes_rule_says_and_nothing_else(statistics: str, tmp_path: Path) -> None:
    """With the source's head right, the change at each anchor is the log ratio of priors."""
    module = fit(tmp_path, 12, statistics=statistics)
    head = module.layer
    expected = bayes_backbone([400, 80, 16])[1]
    assert torch.equal(head.weight, expected.weight)
    assert torch.equal(head.bias, expected.bias)
    assert not any(parameter.requires_grad for parameter in module.backbone.parameters())
    x = Blobs().draw((0, 0, 200), seed=7)
    tail = torch.stack([row["image"] for row in x])
    source, _, inverse = module.priors()
    with torch.no_grad():
        found = [(module.network(p, head).logits(head, tail).argmax(1) == 2).float().mean() for p in module.priors()]
        right = [((expected(tail) + p.log() - source.log()).argmax(1) == 2).float().mean() for p in module.priors()]
    assert found[0] < found[1] < found[2]
    assert all(abs(float(a) - float(b)) < 0.08 for a, b in zip(found, right, strict=True))
    assert torch.allclose(source, torch.tensor([400, 80, 16]) / 496)
    assert torch.allclose(inverse * source, (inverse * source)[0].expand(3), atol=1e-5)


def test_companion_holds_network_calibration_and_confusion(tmp_path: Path) -> None:
    module = fit(tmp_path, 3)
    module.companion().save(tmp_path / "companion.safetensors")
    figures = SourceFigures(tmp_path / "companion.safetensors", None)
    assert figures.calibrated
    assert figures.temperatures[0].item() == pytest.approx(1.0, abs=0.25)
    assert torch.allclose(figures.confusions.sum(1), torch.ones(2, 3), atol=1e-4)
    raw = figures.mean_posteriors("raw")
    assert raw[0, 0] > raw[1, 0] > raw[2, 0]
    with torch.no_grad():
        loaded = figures.network(module.priors()[2], module.layer)
        for ours, theirs in zip(module.network(module.priors()[2], module.layer), loaded, strict=True):
            assert torch.equal(ours, theirs)


class Stop(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "cut.ckpt")
            raise InterruptedError


@pytest.mark.parametrize("step", [20, 13])
def test_resumed_training_equals_uninterrupted(step: int, tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", 4, epoch_steps=10, noise=0.5)
    pl.seed_everything(0, verbose=False)
    module = LabelShiftTraining(bayes_backbone([400, 80, 16]), num_classes=3, lr=0.01, epoch_steps=10, noise=0.5)
    with pytest.raises(InterruptedError):
        trainer(tmp_path / "cut", 4, Stop(step)).fit(module, Blobs())
    pl.seed_everything(9, verbose=False)
    resumed = LabelShiftTraining(bayes_backbone([400, 80, 16]), num_classes=3, lr=0.01, epoch_steps=10, noise=0.5)
    run = trainer(tmp_path / "cut", 4)
    run.fit(resumed, Blobs(), ckpt_path=tmp_path / "cut" / "cut.ckpt")
    assert run.global_step == 40
    for ours, theirs in zip(whole.companion().tensors.values(), resumed.companion().tensors.values(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_data_module_gets_its_loaders_back(tmp_path: Path) -> None:
    data = Blobs()
    fit(tmp_path, 1, data)
    assert set(next(iter(data.train_dataloader()))) == {"image", "label"}


@pytest.mark.parametrize("when", ["before", "during"])
def test_the_data_module_gets_its_loaders_back_after_an_error(when: str, tmp_path: Path) -> None:
    data = Blobs(heldout=(10, 10, 0)) if when == "before" else Blobs()
    module = LabelShiftTraining(bayes_backbone([400, 80, 16]), num_classes=3, epoch_steps=3)
    with pytest.raises((tta.InputError, InterruptedError)):
        trainer(tmp_path, 1, Stop(2)).fit(module, data)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert set(next(iter(loader))) == {"image", "label"}


def test_a_class_that_no_draw_took_leaves_the_confusion_finite(tmp_path: Path) -> None:
    module = fit(tmp_path, 1, Blobs(heldout=(1, 1, 1)), epoch_steps=3, seed=4)
    drawn = torch.cat([draw.labels for draw in module.heldout_draws]).unique().tolist()
    (absent,) = set(range(3)) - set(drawn)
    confusion = module.companion().tensors["raw.confusions"]
    assert torch.equal(confusion[:, absent], torch.eye(3)[absent])
    assert torch.allclose(confusion.sum(dim=0), torch.ones(3), atol=1e-5)


def test_backbone_keeps_its_statistics_and_modes(tmp_path: Path) -> None:
    backbone = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3))
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    module = LabelShiftTraining(backbone, num_classes=3, statistics="batch", epoch_steps=3)
    trainer(tmp_path, 1).fit(module, Blobs())
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())
    assert not backbone.training
    assert backbone[0].track_running_stats
    # under batch statistics the features of every draw are centred, whatever the prior
    for draw in module.training_draws:
        assert torch.allclose(draw.features.mean(0), torch.zeros(2), atol=0.02)


@pytest.mark.parametrize(
    ("arguments", "data", "message"),
    [
        ({"taus": [0.0, 1.0]}, Blobs, "taus has 2 numbers: give one for each of source, uniform, inverse"),
        ({"noise": -1.0}, Blobs, "noise=-1.0.*the others >= 0"),
        ({"statistics": "none"}, Blobs, "statistics='none': choose from source, batch"),
        ({"head": "3"}, Blobs, "head='3': no linear layer of that name"),
        ({}, Tailless, "Tailless has no class_counts: train with a data module that has, or give class_counts"),
        ({"class_counts": [1.0, 2.0]}, Blobs, "2 class counts, 3 outputs .* and 3 classes of the data: give as many"),
        ({"class_counts": [1.0, 2.0, 0.0]}, Blobs, "class_counts holds 0"),
        ({}, lambda: Blobs(heldout=(10, 10, 0)), "class 2 has no image: training and held-out images must show"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], data: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(tta.InputError, match=message):
        fit(tmp_path, 1, data(), **arguments)


def test_no_companion_before_training() -> None:
    with pytest.raises(tta.InputError, match="no companion before training: fit first"):
        LabelShiftTraining(bayes_backbone([4, 2, 1]), num_classes=3).companion()


# ---- the command line ------------------------------------------------------------------------------------------------

QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu")


def parts(*files: str) -> list[str]:
    return [word for file in files for word in ("--config", f"configs/{file}.yaml")]


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a network of digits and its companion."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        pl.seed_everything(0, verbose=False)
        network = models.TimmClassifier("test_resnet", num_classes=10)
        tta_weights = folder / "weights.pt"
        torch.save(network.state_dict(), tta_weights)
        words = ["fit", *parts("training/label_shift", "data/digits_long_tailed_source", "model/digits_resnet"), *QUIET]
        words += ["--model.weights", str(tta_weights), "--trainer.max_epochs", "1", "--model.epoch_steps", "5"]
        assert main([*words, "--trainer.enable_model_summary", "false", "--trainer.default_root_dir", str(folder)]) == 0
    return folder


def adapt(adapter: str, run: Path, folder: Path, *more: str) -> int:
    files = parts("data/digits", f"adapter/{adapter}", "model/digits_resnet")
    data = ["--data.domains", "[contrast, occlusion]", "--data.samples_per_domain", "48", "--data.batch_size", "16"]
    words = ["--model.weights", str(run / "weights.safetensors"), "--trainer.default_root_dir", str(folder)]
    return main(["adapt", *files, *data, *words, *QUIET, *more])


@pytest.mark.parametrize("adapter", ["labelshift", "labelshift_post_hoc"])
def test_from_training_to_adaptation(
    adapter: str, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    companion = ("--model.adapter.companion", str(trained_run / "companion.safetensors"))
    assert adapt(adapter, trained_run, tmp_path / "run", *companion) == 0
    assert (tmp_path / "run" / "report.html").is_file()
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"adapter/degree_of_imbalance", "adapter/prior_entropy", "adapter/prior_9"} <= set(header)


@pytest.mark.usefixtures("pages_without_figures")
def test_resumed_stream_equals_uninterrupted(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    companion = ("--model.adapter.companion", str(trained_run / "companion.safetensors"))
    assert adapt("labelshift", trained_run, tmp_path / "whole", *companion) == 0
    assert adapt("labelshift", trained_run, tmp_path / "cut", *companion, "--trainer.max_steps", "3") == 0
    assert adapt("labelshift", trained_run, tmp_path / "cut", *companion, "--ckpt_path", "last") == 0
    whole, cut = ((tmp_path / name / "predictions.csv").read_text() for name in ("whole", "cut"))
    assert whole == cut


def test_what_does_not_fit_is_one_line_and_status_two(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert adapt("labelshift", trained_run, tmp_path / "none") == 2
    assert "got neither companion nor source_prior: give companion=" in capsys.readouterr().err
    network = LabelShiftNetwork(7, [1.0] * 10)
    Companion("LabelShift", network.tensors(), {"network": network.settings()}).save(tmp_path / "other.safetensors")
    other = ("--model.adapter.companion", str(tmp_path / "other.safetensors"))
    moving = ("--model.adapter.estimator", "tta.adapters.MovingAverage")
    assert adapt("labelshift", trained_run, tmp_path / "other", *other, *moving) == 2
    assert "the companion was trained on 7 features and the classifier's head takes" in capsys.readouterr().err


def test_class_counts_come_from_the_data() -> None:
    data = Digits(imbalance="exponential", imbalance_ratio=20)
    assert len(data.class_counts) == 10
    assert data.class_counts[0] > data.class_counts[9] > 0
