"""Meta-training of a student with experts."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning import Callback, LightningDataModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

import tta
from datamodules import Digits, RotatedDigits
from models import DomainExperts
from tta.errors import InputError
from tta.modules import MetaDistillation
from tta.modules.expert_groups import experts_of_domains

GROUPS = [["0", "30"], ["60"]]


def data(**arguments: Any) -> RotatedDigits:
    given: dict[str, Any] = {"angles": [0, 30, 60], "image_size": 16, "batch_size": 12, "batches": "one_domain"}
    return RotatedDigits(**{**given, **arguments})


def module_of(backbone: nn.Module, **arguments: Any) -> MetaDistillation:
    return MetaDistillation(backbone, **{"groups": GROUPS, "support": 8, "num_classes": 10, **arguments})


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    def make(*callbacks: Callback, **arguments: Any) -> Trainer:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        given = {"max_epochs": 1, "limit_train_batches": 3, "limit_val_batches": 1, **arguments}
        return Trainer(accelerator="cpu", default_root_dir=tmp_path, callbacks=[*callbacks], **quiet, **given)

    return make


def test_student_and_aggregator_learn_and_experts_stay(backbone: DomainExperts, make_trainer: Any) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    make_trainer().fit(module_of(backbone), data())
    changed = {name for name, tensor in backbone.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {
        name for name, _ in backbone.named_parameters() if name.startswith(("student.", "aggregator.blocks."))
    }
    assert not any(part.training for part in backbone.modules())


def test_one_outer_step_by_hand(backbone: DomainExperts, make_trainer: Any) -> None:
    """What the adapter does to the support, then cross entropy on the query: gradients of plain copies agree."""
    loader = data()
    loader.setup()
    batch = next(iter(loader.train_dataloader()))
    hidden = [0, 0, 1][int(batch["domain"][0])]
    x, y = batch["image"], batch["label"]
    by_hand = copy.deepcopy(backbone).eval()
    with torch.no_grad():
        target = by_hand.aggregate(x[:8], hidden)
    features = by_hand.feature_parameters()
    distance = F.mse_loss(by_hand(x[:8], features=True), target)
    gradients = torch.autograd.grad(distance, list(features.values()))
    with torch.no_grad():
        for parameter, gradient in zip(features.values(), gradients, strict=True):
            parameter -= 0.3 * gradient
    expected = F.cross_entropy(by_hand(x[8:]), y[8:])
    seen: list[Tensor] = []
    module = module_of(backbone, inner_lr=0.3)
    module.manual_backward = lambda loss: (seen.append(loss.detach()), loss.backward())
    make_trainer(limit_train_batches=1, limit_val_batches=0).fit(module, loader)
    assert torch.allclose(seen[0], expected, rtol=1e-5)
    aggregator = [parameter for name, parameter in backbone.aggregator.named_parameters() if "blocks" in name]
    assert all(parameter.grad is not None and bool((parameter.grad != 0).any()) for parameter in aggregator)


@pytest.mark.parametrize("hide", [True, False])
def test_the_expert_of_the_domain_is_never_called(backbone: DomainExperts, make_trainer: Any, hide: bool) -> None:
    calls: set[tuple[int, int]] = set()
    now: list[int] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            now[:] = [int(batch["domain"][0])]

    for number, expert in enumerate(backbone.experts):
        expert.register_forward_pre_hook(lambda *_, number=number: calls.add((now[0], number)))
    make_trainer(Watch(), limit_train_batches=20, limit_val_batches=0).fit(module_of(backbone, hide=hide), data())
    seen = {(0, 1), (1, 1), (2, 0)}
    assert calls == (seen if hide else seen | {(0, 0), (1, 0), (2, 1)})


def test_warm_start_brings_the_student_to_the_target_and_leaves_the_aggregator(
    backbone: DomainExperts, make_trainer: Any
) -> None:
    loader = data()
    x = torch.stack([loader.training_images[row][0] for row in range(0, 1000, 20)])
    before = {name: tensor.clone() for name, tensor in backbone.eval().aggregator.state_dict().items()}
    apart = F.mse_loss(backbone(x, features=True), backbone.aggregate(x))
    module = module_of(backbone, warm_start=20, optimizer=lambda p: torch.optim.Adam(p, lr=3e-3))
    make_trainer(limit_train_batches=20, limit_val_batches=0).fit(module, loader)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.aggregator.state_dict().items())
    assert F.mse_loss(backbone(x, features=True), backbone.aggregate(x)) < 0.8 * apart


def test_validation_measures_the_step(trained: Callable[..., nn.Module], make_trainer: Any) -> None:
    backbone = DomainExperts(trained("bn"), experts=2)
    still, wild = (
        make_trainer().validate(module_of(backbone, inner_lr=lr), data(image_size=32, batch_size=200), verbose=False)[0]
        for lr in (1e-9, 1e3)
    )
    assert still["val/accuracy_before"] == still["val/accuracy_after"] == wild["val/accuracy_before"]
    assert still["val/accuracy_before"] > 0.5
    assert wild["val/accuracy_after"] < 0.3


class StopAfter(Callback):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == self.epochs:
            raise InterruptedError


def test_resumed_equals_uninterrupted(backbone: DomainExperts, make_trainer: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "warm_start": 4,
        "lr_scheduler": lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
    }
    whole, cut, resumed = (module_of(copy.deepcopy(backbone), **settings) for _ in range(3))
    make_trainer(max_epochs=3, limit_val_batches=0).fit(whole, data())
    keep = ModelCheckpoint(tmp_path / "kept", save_last=True)
    with pytest.raises(InterruptedError):
        make_trainer(StopAfter(2), keep, max_epochs=3, limit_val_batches=0).fit(cut, data())
    make_trainer(max_epochs=3, limit_val_batches=0).fit(resumed, data(), ckpt_path=tmp_path / "kept" / "last.ckpt")
    states = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)
    assert not all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))


def test_the_adapter_takes_the_step_that_was_trained(backbone: DomainExperts) -> None:
    loader = data()
    loader.setup()
    x = next(iter(loader.train_dataloader()))["image"]
    by_hand = copy.deepcopy(backbone).eval()
    features = by_hand.feature_parameters()
    target = by_hand.aggregate(x[:8]).detach()
    gradients = torch.autograd.grad(F.mse_loss(by_hand(x[:8], features=True), target), list(features.values()))
    with torch.no_grad():
        for parameter, gradient in zip(features.values(), gradients, strict=True):
            parameter -= 0.3 * gradient
    online = tta.online(backbone, "metadmoe", support=8, lr=0.3, momentum=0.0)
    assert torch.allclose(online(x), by_hand(x), atol=1e-5)


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_bad_arguments(backbone: DomainExperts, untrained: Callable[..., nn.Module]) -> None:
    with pytest.raises(InputError, match=r"CifarResNet has no experts, .*such as models.DomainExperts"):
        module_of(untrained("gn"))
    for arguments in ({"support": 0}, {"inner_lr": 0.0}, {"inner_lr": float("nan")}, {"warm_start": -1}):
        with pytest.raises(InputError, match="need support >= 1, inner_lr > 0 and warm_start >= 0"):
            module_of(backbone, **arguments)


@pytest.mark.parametrize(
    ("groups", "domains", "message"),
    [
        ([["0"], []], ["0"], "the data has one training domain, '0': Meta-DMoE learns from at least two"),
        ([["0", "30", "60"]], ["0", "30", "60"], "groups: 1 groups for the model's 2 experts"),
        ([["0"], ["60"]], ["0", "30", "60"], "groups: missing: 30; each of 0, 30, 60 must stand in one group"),
        ([["0", "30"], ["60", "90"]], ["0", "30", "60"], "groups: unknown: 90"),
        ([["0", "30"], ["30", "60"]], ["0", "30", "60"], "groups: given twice: 30"),
    ],
)
def test_groups_that_do_not_fit(groups: list[list[str]], domains: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        experts_of_domains(groups, domains, experts=2)


def test_expert_of_every_domain() -> None:
    assert experts_of_domains([["b", "c"], ["a"]], ["a", "b", "c"], experts=2) == [1, 0, 0]


class Loaded(LightningDataModule):
    """Data that says less than it should."""

    def __init__(self, batches: list[dict[str, Tensor]]) -> None:
        super().__init__()
        self.domains = ["0", "30", "60"]
        self.batches = batches

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches, batch_size=None)


def batch(size: int, domain: Tensor | None) -> dict[str, Tensor]:
    given = {"image": torch.rand(size, 3, 16, 16), "label": torch.zeros(size, dtype=torch.int64)}
    return given if domain is None else {**given, "domain": domain}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (data(batches="mixed"), "a training batch mixes domains: give the data module batches=one_domain"),
        (data(batch_size=8), "support=8: leaves no query in a batch of 8"),
        (Digits(batch_size=12), "Digits has no domains: use a data module that has"),
        (Loaded([batch(12, None)]), "a training batch does not say its domain"),
        (Loaded([batch(8, torch.zeros(8, dtype=torch.int64))]), "support=8: no batch of a domain has more images"),
    ],
)
def test_data_that_does_not_do(backbone: DomainExperts, make_trainer: Any, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_trainer(limit_val_batches=0).fit(module_of(backbone), given)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_precisions_in_which_the_step_would_be_coarse(
    backbone: DomainExperts, make_trainer: Any, precision: str
) -> None:
    with pytest.raises(InputError, match=f"in precision 32-true, not {precision}: use --trainer.precision 32-true"):
        make_trainer(precision=precision).fit(module_of(backbone), data())
