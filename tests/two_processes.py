"""One of two processes that share a stream: runs with all that ``tta adapt`` brings, as a program and as a function."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, seed_everything

import tta.callbacks.report
from datamodules import DigitsStream
from models import TimmClassifier
from tests.every_method import host
from tests.pairs import one_after_the_other
from tta.adapters import EATA, SAR, Adapter, Tent
from tta.callbacks import BatchCheckpoint, Recorder
from tta.modules import OnlineAdaptation
from tta.trainer import StreamTrainer

ADAPTERS: dict[str, Callable[[], Adapter]] = {
    "tent": Tent,
    "eata": lambda: EATA(margin=0.97, redundancy=0.9, fisher_alpha=1.0),
    "sar": lambda: SAR(margin=0.97, reset_threshold=0.0),
    "sar that resets": lambda: SAR(margin=0.999, reset_threshold=2.25),
    "sar of a transformer": lambda: SAR(margin=0.05, reset_threshold=0.0),
}

RESUMED = ("labelshift", "metadmoe", "sar", "sar of a transformer")


def network(adapter: str) -> TimmClassifier:
    """With batch normalisation; or a transformer, of which only samples that teach have a graph. Seeded."""
    seed_everything(0)
    if adapter == "sar of a transformer":
        transformer = TimmClassifier("test_vit", num_classes=10, arguments={"img_size": 32, "patch_size": 8})
        with torch.no_grad():
            transformer.network.head.weight *= 30  # without training all entropies would be nearly the same
        return transformer
    return TimmClassifier("test_resnet", num_classes=10)


class Spoil(Callback):
    """One process meets a batch without a finite sample, the other does not."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1 and trainer.global_rank == 1:
            batch["image"].fill_(torch.nan)


class Crash(Callback):
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 3:
            raise InterruptedError


class Dump(Callback):
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        state = {**pl_module.backbone.state_dict(), **pl_module.adapter.state_dict()}
        seen = torch.tensor([pl_module.monitor.count(name) for name in ("samples", "flagged", "resets", "correct")])
        torch.save({**state, "seen": seen}, f"{trainer.default_root_dir}/rank-{trainer.global_rank}.pt")


def adapt(folder: Path, adapter: str, mode: str) -> None:
    """The whole stream, a part of it up to a crash, or the rest from the last checkpoint on."""
    torch.set_num_threads(1)
    callbacks = [Spoil(), Dump(), Recorder(), BatchCheckpoint(2)] + ([Crash()] if mode == "crash" else [])
    trainer = StreamTrainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    stream = DigitsStream(batch_size=8, samples_per_domain=47, domains=["clean", "contrast"])
    trainer.adapt(_host(adapter), stream, ckpt_path="last" if mode == "resume" else None)


def _host(adapter: str) -> OnlineAdaptation:
    if adapter not in ADAPTERS:
        return host(adapter)
    return OnlineAdaptation(
        network(adapter),
        ADAPTERS[adapter](),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        num_classes=10,
    )


def all_adapted(folder: Path) -> None:
    """Of one of two processes: each method without a break; ``RESUMED`` also up to a crash, and on from there."""
    tta.callbacks.report.write_report = lambda run: run / "report.html"  # nobody looks at these pages
    for adapter in {**ADAPTERS, **dict.fromkeys(RESUMED)}:
        runs = {"whole": partial(adapt, adapter=adapter, mode="whole")}
        if adapter in RESUMED:
            runs |= {"cut": partial(adapt, adapter=adapter, mode="crash"), "rest": partial(_go_on, adapter=adapter)}
        (folder / adapter).mkdir(exist_ok=True)
        one_after_the_other(folder / adapter, runs)


def _go_on(folder: Path, adapter: str) -> None:
    adapt(folder.parent / "cut", adapter, "resume")


if __name__ == "__main__":
    adapt(Path(sys.argv[2]), sys.argv[1], sys.argv[3])
