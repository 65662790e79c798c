"""What every method that several processes may share does on a small stream, in one of two processes or alone."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from torch import nn

from datamodules import DigitsStream
from datamodules.digits import digit_parts
from tests.adapters.conftest import BASE, companion
from tests.fixtures import NETWORKS
from tests.pairs import ddp, leave, one_after_the_other
from tta.adapters import ExpectationMaximization, Tent
from tta.adapters.head import linear_head
from tta.adapters.registry import adapter_class, list_adapters
from tta.modules import OnlineAdaptation

SHARED = [
    name
    for name in list_adapters()
    if adapter_class(name).facts.needs_gradients and not adapter_class(name).facts.one_process
] + ["labelshift"]
"""Methods whose steps several processes can share. LabelShift declares what its inner method does."""

RUNS = {name: (name, "ln") for name in SHARED} | {f"{name} bn": (name, "bn") for name in ("cotta", "deyo", "roid")}
"""Method and network of each run: a transformer; for some that pass several times, one with batch normalisation."""

ARGUMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "labelshift": lambda: {"adapter": Tent(), "estimator": ExpectationMaximization(window=12, concentration=20.0)},
    "metadmoe": lambda: {"support": 12, "steps": 2},
    "rdumb": lambda: {"every": 3},
}
"""Arguments other than those for tests in one process."""

OWN = {"cotta": {"confidence"}, "labelshift": {"estimator.posteriors", "estimator.seen"}, "metadmoe": {"images"}}
"""Method state that is of each process' own samples."""

AVERAGED: dict[str, dict[str, Any]] = {"cotta": {"threshold": 0.0}, "tent": {}}
"""Methods to which all samples count alike: two processes do what one does with batches of twice the size."""


read_digits = cache(digit_parts)


class SpoilSome(Callback):
    """One process meets a batch without a finite sample, and then the other one with three of them."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx, trainer.global_rank) == (1, 1):
            batch["image"].fill_(torch.nan)
        if (batch_idx, trainer.global_rank) == (2, 0):
            batch["image"][3:].fill_(torch.nan)


class ReadOnce(DigitsStream):
    """Digits whose files are read once for all runs of a process."""

    def setup(self, stage: str | None = None) -> None:
        self.source, self.heldout, self.stream = read_digits(self.image_size, self.split_seed)


def untrained(kind: str) -> nn.Module:
    """A network, seeded, with entropies that vary."""
    seed_everything(0)
    network = NETWORKS[kind]().eval()
    with torch.no_grad():
        linear_head(network).weight *= 30
    return network


def host(name: str, kind: str = "ln", **arguments: Any) -> OnlineAdaptation:
    """A method around a network, or around what it needs of one."""
    model, own = companion(name, kind, untrained(kind))
    given = {**BASE.get(name, {}), **ARGUMENTS.get(name, dict)(), **own, **arguments}
    return OnlineAdaptation(
        model,
        adapter_class(name)(**given),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
        num_classes=10,
    )


def parameters(module: OnlineAdaptation) -> dict[str, torch.Tensor]:
    """Parameters of the model and of the method."""
    return {**dict(module.backbone.named_parameters()), **dict(module.adapter.named_parameters())}


def state(module: OnlineAdaptation) -> dict[str, torch.Tensor]:
    """Weights of the model and state of the method."""
    return {**module.backbone.state_dict(), **module.adapter.state_dict()}


def run(folder: Path, module: OnlineAdaptation, processes: int, batch_size: int, *callbacks: Callback) -> None:
    """Adapt to 64 digits."""
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=processes,
        strategy=ddp() if processes > 1 else "auto",
        max_epochs=1,
        limit_val_batches=0,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, ReadOnce(batch_size=batch_size, samples_per_domain=32, domains=["clean", "contrast"]))


def all_runs(folder: Path) -> None:
    """Of one of two processes: ``RUNS`` on a spoilt stream, and ``AVERAGED`` on a whole one."""
    spoilt = {run: partial(_of_two, spoil=True, name=name, kind=kind) for run, (name, kind) in RUNS.items()}
    whole = {f"{name} whole": partial(_of_two, name=name, **more) for name, more in AVERAGED.items()}
    one_after_the_other(folder, spoilt | whole)


def _of_two(folder: Path, spoil: bool = False, **arguments: Any) -> None:
    module = host(**arguments)
    run(folder, module, 2, 8, *([SpoilSome()] if spoil else []))
    leave(folder, state(module))
