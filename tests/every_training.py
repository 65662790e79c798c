"""A few steps of every kind of training, in one of two processes or alone."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.tensor import DTensor

import models
from datamodules import CorruptedDomains, Digits, RotatedDigits, digits, rotated_digits
from tests.pairs import ddp, leave, one_after_the_other
from tta.callbacks import SaveWeights
from tta.modules import (
    AggregatorPretraining,
    ExpertTraining,
    ITTATraining,
    LabelShiftTraining,
    MetaDistillation,
    SourceTraining,
)

Training = Callable[[int], tuple[LightningModule, LightningDataModule]]
"""Makes module and data, for so many images in a batch."""


def plain() -> nn.Module:
    """A small network whose images do not depend on each other."""
    return models.CifarResNet(8, norm="group")


def with_experts() -> nn.Module:
    """A student with two experts; without dropout, whose masks would be those of other images."""
    return models.DomainExperts(plain(), experts=2, dropout=0.0)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def _turned(batch_size: int, batches: Any = "mixed") -> RotatedDigits:
    return RotatedDigits(angles=[0, 45], image_size=8, batch_size=batch_size, batches=batches)


def _source(batch_size: int) -> tuple[LightningModule, LightningDataModule]:
    return SourceTraining(plain(), sgd, num_classes=10), Digits(image_size=8, batch_size=batch_size)


def _few(batch_size: int) -> tuple[LightningModule, LightningDataModule]:
    data = Digits(image_size=8, batch_size=batch_size, imbalance="step", imbalance_ratio=50)
    return SourceTraining(plain(), sgd, num_classes=10), data


def _experts(batch_size: int) -> tuple[LightningModule, LightningDataModule]:
    network = models.MultiExpertCifarResNet(8, 10, num_experts=3)
    data = Digits(image_size=8, batch_size=batch_size, imbalance="exponential", imbalance_ratio=5)
    return ExpertTraining(network, sgd, num_classes=10, tau=1.0), data


def _label_shift(batch_size: int) -> tuple[LightningModule, LightningDataModule]:
    module = LabelShiftTraining(plain(), num_classes=10, hidden=8, epoch_steps=6, noise=0.5)
    return module, Digits(image_size=8, batch_size=batch_size)


def _aggregator(batch_size: int) -> tuple[LightningModule, LightningDataModule]:
    return AggregatorPretraining(with_experts(), sgd, num_classes=10), _turned(batch_size)


def _meta(batch_size: int) -> tuple[LightningModule, LightningDataModule]:
    groups = [["0"], ["45"]]
    module = MetaDistillation(
        with_experts(), groups, support=batch_size // 2, warm_start=1, optimizer=sgd, aggregator_optimizer=sgd
    )
    module.num_classes = 10
    return module, _turned(batch_size, "one_domain")


def _itta(batch_size: int) -> tuple[LightningModule, LightningDataModule]:
    module = ITTATraining(plain(), ["layer1", "layer2"], input_shape=(3, 8, 8), lr=1e-3, num_classes=10)
    data = CorruptedDomains(
        Digits(image_size=8), ["clean", "invert:1"], levels="digits", batches="every_domain", batch_size=batch_size
    )
    return module, data


TRAININGS: dict[str, Training] = {
    "aggregator": _aggregator,
    "experts": _experts,
    "itta": _itta,
    "label shift": _label_shift,
    "meta": _meta,
    "source": _source,
}


class Seen(Callback):
    """Which images each epoch showed."""

    def __init__(self) -> None:
        self.images: list[tuple[int, int]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if isinstance(batch, dict):
            self.images += [(trainer.current_epoch, index) for index in batch["index"].tolist()]


def train(
    folder: Path, training: Training, batch_size: int, strategy: Any = "auto", **arguments: Any
) -> tuple[LightningModule, dict[str, Any]]:
    """Two epochs of a few batches.

    Returns:
        The module, and what was logged and seen.
    """
    seed_everything(0)
    module, data = training(batch_size)
    seen = Seen()
    given = {"max_epochs": 2, "limit_train_batches": 3, "limit_val_batches": 2, **arguments}
    path = given.pop("ckpt_path", None)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1 if strategy == "auto" else 2,
        strategy=strategy,
        callbacks=[seen, SaveWeights(), *given.pop("callbacks", [])],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        **given,
    )
    trainer.fit(module, data, ckpt_path=path)
    return module, {"logged": dict(trainer.callback_metrics), "seen": seen.images}


# ---- runs of two processes ------------------------------------------------------------------------------------------

SHARDED = ("aggregator", "experts", "source")
"""Trainings whose parameters processes can share out."""

REFUSED = {"itta": "fsdp", "label shift": "fsdp", "meta": "fsdp", "source": "split"}
"""Trainings and the strategies that they refuse."""


def model_parallel(data: int, tensor: int) -> ModelParallelStrategy:
    """Parameters shared out, and checkpoints in one file."""
    return ModelParallelStrategy(data, tensor, save_distributed_checkpoint=False, timeout=timedelta(seconds=15))


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "ddp": ddp,
    "fsdp": partial(model_parallel, 2, 1),
    "split": partial(model_parallel, 1, 2),
}


class Cut(Callback):
    """Stops in the middle of the second epoch, with a checkpoint."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (1, 0):
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "cut.ckpt")
            raise InterruptedError


def all_trainings(folder: Path) -> None:
    """Of one of two processes: every training; with parameters shared out; with what is refused; and resumed."""
    for module in (digits, rotated_digits):
        module.digit_parts = cache(module.digit_parts)  # read once for all
    runs = {name: partial(_of_two, name=name, strategy="ddp") for name in TRAININGS}
    runs |= {f"{name} sharded": partial(_of_two, name=name, strategy="fsdp") for name in SHARDED}
    runs |= {f"{name} refused": partial(_of_two, name=name, strategy=strategy) for name, strategy in REFUSED.items()}
    runs |= {f"{strategy} resumed": partial(_resumed, strategy=strategy) for strategy in ("ddp", "fsdp")}
    one_after_the_other(folder, runs)


def _of_two(folder: Path, name: str, strategy: str, batch_size: int = 8, **arguments: Any) -> None:
    module, told = train(folder, {**TRAININGS, "few": _few}[name], batch_size, STRATEGIES[strategy](), **arguments)
    leave(folder, {"state": _whole(module), "held": _held(module), **told})


def _whole(module: LightningModule) -> dict[str, torch.Tensor]:
    state = module.state_dict().items()
    return {key: value.full_tensor() if isinstance(value, DTensor) else value for key, value in state}


def _held(module: LightningModule) -> int:
    """Numbers in the parameters that this process holds."""
    parameters = (p.to_local() if isinstance(p, DTensor) else p for p in module.backbone.parameters())
    return sum(parameter.numel() for parameter in parameters)


def _resumed(folder: Path, strategy: str) -> None:
    """Two epochs of all images without a break, then with one."""
    given = {"name": "few", "strategy": strategy, "batch_size": 80, "limit_train_batches": 1.0}
    _of_two(folder, **given)
    (folder / "rest").mkdir(exist_ok=True)
    with suppress(InterruptedError):
        _of_two(folder, **given, callbacks=[Cut()])
    _of_two(folder / "rest", **given, ckpt_path=folder / "cut.ckpt")
