"""Training of a classifier with its consistency loss, and the way from there to adaptation."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning import Callback, LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

import models
import tta
from datamodules import CorruptedDomains, Digits
from tta.adapters import ITTA
from tta.adapters.head import features_of, linear_head
from tta.cli import main
from tta.modules import ITTATraining

ROOT = Path(__file__).parents[2]
BLOCKS = ["layer1", "layer2", "layer3"]
Make = Callable[..., Any]


@pytest.fixture
def make() -> Make:
    def training(seed: int = 0, norm: str = "group", **arguments: Any) -> ITTATraining:
        torch.manual_seed(seed)
        given = {"blocks": BLOCKS, "input_shape": (3, 8, 8), "lr": 1e-3, "num_classes": 10}
        return ITTATraining(models.CifarResNet(8, norm=norm), **{**given, **arguments})

    return training


@pytest.fixture
def fit(tmp_path: Path) -> Make:
    def run(module: ITTATraining, data: Any, batches: int = 3, *callbacks: Callback, **arguments: Any) -> Trainer:
        path = arguments.pop("ckpt_path", None)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        given = {"max_epochs": 1, "limit_train_batches": batches, "limit_val_batches": 0, "enable_checkpointing": False}
        trainer = Trainer(default_root_dir=tmp_path, callbacks=list(callbacks), **{**quiet, **given, **arguments})
        trainer.fit(module, ckpt_path=path, **({"datamodule": data} if isinstance(data, LightningDataModule) else data))
        return trainer

    return run


def domains(*names: str, **arguments: Any) -> CorruptedDomains:
    names = names or ("clean", "invert:1")
    given = {"levels": "digits", "batches": "every_domain", "batch_size": 16}
    return CorruptedDomains(Digits(image_size=8), list(names), **{**given, **arguments})


class Logged(Callback):
    """Values of a figure, step by step."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.values.append(float(trainer.callback_metrics[f"train/{self.name}_step"]))


def weights(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


# ---- the two steps --------------------------------------------------------------------------------------------------


def test_first_step_is_adam_on_both_entropies_and_the_consistency(make, fit):
    """With a single style in the batch, mixed features are the plain ones: the loss is twice the cross entropy.

    Adam's first step is the learning rate against the sign of the gradient, so signs of tiny gradients are left out.
    """
    module, by_hand = make(alignment=0.0), make().backbone
    image = torch.rand(1, 3, 8, 8)
    batch = {"image": image.repeat(4, 1, 1, 1), "label": torch.tensor([0, 1, 2, 3])}
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-3)
    (2 * F.cross_entropy(by_hand(batch["image"]), batch["label"])).backward()
    optimizer.step()
    clear = torch.cat([p.grad.flatten().abs() > 1e-4 for p in by_hand.parameters()])
    assert clear.float().mean() > 0.5
    fit(module, {"train_dataloaders": DataLoader([batch], batch_size=None)})
    assert torch.allclose(weights(module.backbone)[clear], weights(by_hand)[clear], atol=2e-6)
    assert torch.equal(module.f_w.weight, torch.ones(10, 64))


def test_consistency_draws_the_features_of_both_passes_together(make, fit):
    apart = {}
    for weight in (0.0, 100.0):
        module = make(consistency=weight, alignment=0.0)
        logged = Logged("consistency")
        fit(module, domains(), 12, logged)
        apart[weight] = sum(logged.values[-4:])
    assert apart[100.0] < 0.8 * apart[0.0]


def test_second_step_moves_the_loss_alone(make, fit):
    aligned, left = make(), make(alignment=0.0)
    for module in (aligned, left):
        fit(module, domains(), 1)
    assert torch.equal(weights(aligned.backbone), weights(left.backbone))
    assert torch.equal(left.f_w.weight, torch.ones(10, 64))
    moved = (aligned.f_w.weight - 1).abs()
    assert moved.max().item() == pytest.approx(1e-4, rel=1e-3), "Adam's first step is its learning rate, lr / 10"


def test_second_step_raises_the_gradient_correlation(make, fit):
    """The network as good as fixed, one batch again and again: what rises is due to the loss."""
    data = domains(batch_size=24)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    rising = {}
    for alignment in (0.1, 0.0):
        logged = Logged("gradient_correlation")
        module = make(lr=1e-9, consistency_lr=0.01, alignment=alignment)
        fit(module, {"train_dataloaders": DataLoader([batch] * 36, batch_size=None)}, 36, logged)
        rising[alignment] = torch.tensor(logged.values)
    gain = rising[0.1] - rising[0.0]
    assert gain[0].abs() < 1e-6
    assert gain[-12:].mean() > max(0.02, gain[:12].mean())


def test_constant_statistics_shrink_the_loss(make, fit):
    lengths = {}
    for constant in (False, True):
        module = make(consistency_lr=0.01, constant_statistics=constant)
        fit(module, domains(), 12)
        lengths[constant] = module.f_w.weight.mean().item()
    assert lengths[True] < lengths[False] - 0.005


def test_frozen_batch_norm_keeps_its_statistics(make, fit):
    frozen, live = make(norm="batch"), make(norm="batch", freeze_batch_norm=False)
    for module in (frozen, live):
        fit(module, domains())
    assert torch.equal(frozen.backbone.bn1.running_mean, torch.zeros(16))
    assert not torch.equal(live.backbone.bn1.running_mean, torch.zeros(16))
    assert not torch.equal(frozen.backbone.bn1.weight, torch.ones(16)), "its parameters are trained"


def test_a_transformer_has_gradients_of_gradients(fit):
    network = models.TimmClassifier("test_vit", num_classes=10, arguments={"img_size": 16, "patch_size": 4})
    module = ITTATraining(network, ["network.blocks.0", "network.blocks.1"], input_shape=(3, 16, 16), num_classes=10)
    fit(module, CorruptedDomains(Digits(image_size=16), ["clean", "invert:1"], levels="digits", batch_size=8), 2)
    assert not torch.equal(module.f_w.weight, torch.ones_like(module.f_w.weight))
    online = tta.online(module.backbone, ITTA(module.companion()), optimizer="adam")
    assert online(torch.rand(4, 3, 16, 16)).shape == (4, 10)
    assert online.adapter.maps.relu == [False, False]


# ---- randomness and resuming ----------------------------------------------------------------------------------------


def state(module: ITTATraining) -> dict[str, Tensor]:
    return {**module.state_dict(), **{f"companion.{k}": v for k, v in module.companion().tensors.items()}}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_seed_decides(make, fit):
    states = []
    for seed in (1, 1, 2):
        module = make(seed=0)
        module.seed = seed
        torch.manual_seed(len(states))
        fit(module, domains())
        states.append(state(module))
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


class Interrupt(Callback):
    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "cut.ckpt")
            raise InterruptedError


def test_resumed_equals_uninterrupted(make, fit, tmp_path):
    def dropping() -> ITTATraining:
        module = make()
        module.backbone.layer2.append(nn.Dropout(0.2))
        return module

    whole, cut, resumed = dropping(), dropping(), dropping()
    fit(whole, domains(), 6)
    with pytest.raises(InterruptedError):
        fit(cut, domains(), 6, Interrupt())
    torch.manual_seed(9)
    fit(resumed, domains(), 6, ckpt_path=tmp_path / "cut.ckpt")
    assert int(resumed.steps) == 6
    assert same(state(resumed), state(whole))


# ---- what it leaves -------------------------------------------------------------------------------------------------


def test_companion_has_the_styles_of_the_last_images(make, fit):
    module = make(bank_size=20, lr=1e-9)
    seen: list[Tensor] = []

    class Keep(Callback):
        def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
            seen.append(batch["image"])

    fit(module, domains(), 3, Keep())
    companion = module.companion()
    assert companion.tensors["bank.mean0"].shape == (20, 16)
    assert companion.tensors["bank.std1"].shape == (20, 32)
    with torch.no_grad():
        net = module.backbone.eval()
        after = net.layer1(F.relu(net.bn1(net.conv1(net.normalize(torch.cat(seen)[-20:])))))
    expected, kept = after.mean(dim=(2, 3)), companion.tensors["bank.mean0"]
    assert torch.allclose(expected.sort(dim=0).values, kept.sort(dim=0).values, atol=1e-4)
    assert companion.settings == {
        "blocks": BLOCKS,
        "shapes": [[16, 8, 8], [32, 4, 4], [64, 2, 2]],
        "nonnegative": [True, True, True],
        "style_blocks": ["layer1", "layer2"],
        **{"head": "linear", "features": 64, "classes": 10},
    }


def test_companion_before_training_adapts_from_the_batch(make):
    module = make()
    online = tta.online(module.backbone, ITTA(module.companion()), optimizer="adam")
    with features_of(linear_head(online.model)) as features:
        assert online(torch.rand(4, 3, 8, 8)).shape == (4, 10)
    assert len(features) == 3


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": ["layer4"]}, r"blocks: 'layer4' is no block of CifarResNet; candidates are layer"),
        ({"style_blocks": ["stem"]}, "style_blocks: 'stem' is no block"),
        ({"style_blocks": ["linear"]}, "style_blocks: 'linear' cannot be used: .* no style"),
        ({"input_shape": (2, 8, 8)}, r"input_shape=\[2, 8, 8\]: the backbone cannot take it"),
        ({"head": "fc"}, "head='fc': no linear layer of that name"),
        ({"lr": 0.0}, "need all > 0"),
        ({"alpha": -1.0}, "need all > 0"),
        ({"alignment": -1.0}, "need all >= 0"),
        ({"depth": 0}, "need both >= 1"),
        ({"bank_size": 0}, "need bank_size >= 1"),
    ],
)
def test_bad_arguments_are_told_in_one_line(make, arguments, message):
    with pytest.raises(tta.InputError, match=message) as told:
        make(**arguments)
    assert "\n" not in str(told.value)


def test_data_that_do_not_suit_are_told(make, fit):
    with pytest.raises(tta.InputError, match="CorruptedDomains has one, 'clean': give it at least two"):
        fit(make(), domains("clean"))
    with pytest.raises(tta.InputError, match="Digits has none: give it at least two"):
        fit(make(), Digits(image_size=8))
    with pytest.raises(tta.InputError, match=r"input_shape=\[3, 8, 8\]: the images have shape \[3, 16, 16\]"):
        fit(make(), CorruptedDomains(Digits(image_size=16), ["clean", "invert:1"], levels="digits"))
    with pytest.raises(tta.InputError, match="set the backbone's class count"):
        fit(make(num_classes=7), domains())
    with pytest.raises(tta.InputError, match="precision 32-true"):
        fit(make(), domains(), precision="bf16-mixed")


# ---- the command line -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("itta")
    parts = ("data/digits_styles_source", "model/digits_resnet8", "training/itta")
    words = [word for part in parts for word in ("--config", f"configs/{part}.yaml")]
    limits = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1")
    quiet = ("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert main(["fit", *words, *limits, *quiet, "--trainer.default_root_dir", str(folder)]) == 0
    return folder


def adapt(trained: Path, folder: Path, *words: str) -> int:
    parts = ("data/digits", "model/digits_resnet8", "adapter/itta", "trainer/cpu")
    configs = [word for part in parts for word in ("--config", f"configs/{part}.yaml")]
    images = ("--data.samples_per_domain", "24", "--data.domains", "[contrast, invert]", "--data.batch_size", "8")
    files = ("--model.weights", str(trained / "weights.safetensors"))
    companion = ("--model.adapter.companion", str(trained / "companion.safetensors"))
    small = ("--trainer.enable_progress_bar", "false", "--trainer.limit_val_batches", "0")
    own = ("--trainer.default_root_dir", str(folder))
    return main(["adapt", *configs, *images, *files, *companion, *small, *own, *words])


@pytest.fixture
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("in_project")
def test_from_fit_to_adapt(trained, tmp_path):
    rows = list(csv.DictReader((trained / "metrics.csv").open()))
    assert any(row.get("train/gradient_correlation_epoch") for row in rows)
    assert adapt(trained, tmp_path / "run") == 0
    names = {file.name for file in (tmp_path / "run").iterdir()}
    assert names >= {"metrics.csv", "predictions.csv", "summary.json", "report.html"}


@pytest.mark.usefixtures("in_project")
@pytest.mark.usefixtures("pages_without_figures")
def test_a_cut_adaptation_goes_on_as_if_it_had_not_been_cut(trained, tmp_path, monkeypatch):
    every = ("--trainer.callbacks+", "tta.callbacks.BatchCheckpoint", "--trainer.callbacks.every_n_batches", "2")
    assert adapt(trained, tmp_path / "whole", *every) == 0
    usual, calls = ITTA.adapt, []

    def failing(self: ITTA, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise InterruptedError
        return usual(self, *args)

    monkeypatch.setattr(ITTA, "adapt", failing)
    with pytest.raises(InterruptedError):
        adapt(trained, tmp_path / "cut", *every, "--model.adapter.seed", "0")
    monkeypatch.setattr(ITTA, "adapt", usual)
    assert adapt(trained, tmp_path / "cut", *every, "--ckpt_path", "last") == 0
    whole, cut = ((tmp_path / name / "predictions.csv").read_text() for name in ("whole", "cut"))
    assert whole == cut


@pytest.mark.usefixtures("in_project")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model.adapter.companion", "nowhere.safetensors"), "no companion of ITTA"),
        (("--model.adapter.blocks", "[layer9]"), "the companion was trained for layer1, layer2, layer3"),
        (("--data.image_size", "16"), "use images of that size"),
        (("--model.backbone.num_classes", "7", "--model.weights", "null"), "has 64 and 7: give the companion of this"),
    ],
)
def test_bad_input_of_the_command_line_is_one_line(trained, tmp_path, capsys, words, message):
    assert adapt(trained, tmp_path / "run", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
