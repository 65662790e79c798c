"""What the two hosts cost over the bare method, and what the guard costs over the method that it guards.

    python -m benchmarks.overhead

The bare method is ``adapter(model, images, TorchUpdater(optimizer))`` in a loop. All rungs adapt timm's ``resnet18`` to
the same random 32x32 images at batch 64, in turn, in an order that rotates, in one process; ratios of their times are
taken within each turn. The Lightning host runs with its defaults: CSV records, monitor, frozen source model, progress
bar; a checkpoint falls outside the timed batches, so a hundredth of the time that one takes is added to each batch.
Every sample teaches (margins are wide), so that each method does all its passes. The timed batches are as many as the
frozen source model's runs come round in. The guard has the images of the first batches as its source, and its extra
passes are counted where they happen; its extra time is put in passes of the model without gradients.
"""

import argparse
import itertools
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from pytorch_lightning import Callback, LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

import tta
from tta.adapters import Adapter, Guard
from tta.adapters.registry import adapter_class
from tta.callbacks import BatchCheckpoint, Report
from tta.modules import OnlineAdaptation
from tta.monitor import CostMeter
from tta.online import OPTIMIZERS
from tta.trainer import StreamTrainer
from tta.updater import TorchUpdater

ARGUMENTS: dict[str, dict[str, float]] = {
    "tent": {},
    "eata": {"margin": 1.1, "redundancy": 1.1, "fisher_alpha": 0.0},
    "sar": {"margin": 1.1, "reset_threshold": 0.0},
}
GUARDED = "sar"
WARM_UP = 3
CHECKPOINTS = 100
"""Batches between two checkpoints, by default."""

Turn = dict[str, float]


class Batches(LightningDataModule):
    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.batches = [
            {
                "image": torch.rand(size, 3, 32, 32, generator=generator),
                "label": torch.randint(10, (size,), generator=generator),
                "domain": torch.zeros(size, dtype=torch.int64),
                "index": torch.arange(size),
            }
            for _ in range(count)
        ]
        self.domains = ["random"]

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]


class Clock(Callback):
    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.starts.append(time.perf_counter())


class TimedCheckpoint(BatchCheckpoint):
    def __init__(self) -> None:
        super().__init__(sys.maxsize)  # one, at the end of the stream
        self.seconds = 0.0

    def on_train_batch_end(self, *arguments: Any) -> None:
        started = time.perf_counter()
        super().on_train_batch_end(*arguments)
        self.seconds = time.perf_counter() - started


class NoReport(Report):
    def on_train_end(self, *arguments: Any) -> None:
        """Not part of a batch."""


def online(adapter: str | Adapter, data: Batches) -> tta.OnlineModel:
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=10)
    if isinstance(adapter, Adapter):
        return tta.online(model, adapter, source=data.batches[:4])
    return tta.online(model, adapter, **ARGUMENTS[adapter])


def looped(step: Callable[[Tensor], Any], data: Batches) -> float:
    starts = []
    for batch in data.train_dataloader():
        starts.append(time.perf_counter())
        step(batch["image"])
    return starts[-1] - starts[WARM_UP]


def bare(adapter: str, data: Batches) -> Turn:
    made = online(adapter, data)
    updater = TorchUpdater(made.optimizer)
    return {"bare": looped(lambda x: made.adapter(made.model, x, updater), data)}


def hosted_online(adapter: str, data: Batches) -> Turn:
    return {"online": looped(online(adapter, data), data)}


def hosted_lightning(adapter: str, data: Batches) -> Turn:
    made, clock, checkpoint = online(adapter, data), Clock(), TimedCheckpoint()
    host = OnlineAdaptation(made.model, made.adapter, OPTIMIZERS["sgd"], num_classes=10)
    with tempfile.TemporaryDirectory() as folder:
        trainer = StreamTrainer(
            default_root_dir=folder,
            callbacks=[clock, checkpoint, NoReport()],
            accelerator="cpu",
            logger=False,
            enable_model_summary=False,
        )
        trainer.adapt(host, data)
    seconds = clock.starts[-1] - clock.starts[WARM_UP]
    checkpoints = checkpoint.seconds * timed(data) / CHECKPOINTS
    return {"lightning": seconds + checkpoints, "checkpoints": checkpoints}


def guarded(adapter: str, data: Batches) -> Turn:
    made = online(Guard(adapter_class(adapter)(**ARGUMENTS[adapter])), data)
    meter, counts = CostMeter(made.model), []

    def step(x: Tensor) -> None:
        counts.append(meter.forwards)
        made(x)

    seconds = looped(step, data)
    passes = (counts[-1] - counts[WARM_UP]) / sum(len(batch["image"]) for batch in data.batches[WARM_UP:-1])
    return {"guard": seconds, "guard_passes": passes - made.adapter.adapter.facts.forwards}


def passed(adapter: str, data: Batches) -> Turn:
    model = online(adapter, data).model.eval()
    with torch.no_grad():
        return {"pass": looped(model, data)}


def timed(data: Batches) -> int:
    return len(data.batches) - WARM_UP - 1


def one_turn(adapter: str, data: Batches, order: int) -> Turn:
    rungs = [bare, hosted_online, hosted_lightning]
    if adapter == GUARDED:
        rungs += [guarded, passed]
    turned = itertools.islice(itertools.cycle(rungs), order % len(rungs), order % len(rungs) + len(rungs))
    return {name: value for rung in turned for name, value in rung(adapter, data).items()}


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "smallest": min(values), "largest": max(values)}


def figures(turns: list[Turn], count: int) -> dict[str, Any]:
    rungs = [name for name in ("bare", "online", "lightning", "checkpoints", "guard", "pass") if name in turns[0]]
    found: dict[str, Any] = {
        "seconds_per_batch": {name: statistics.median(turn[name] for turn in turns) / count for name in rungs},
        "online_over_bare": spread([turn["online"] / turn["bare"] for turn in turns]),
        "lightning_over_bare": spread([turn["lightning"] / turn["bare"] for turn in turns]),
    }
    if "guard" in turns[0]:
        found["guard_over_online"] = spread([turn["guard"] / turn["online"] for turn in turns])
        found["guard_extra_passes_counted"] = turns[0]["guard_passes"]
        found["guard_extra_passes_by_time"] = spread(
            [(turn["guard"] - turn["online"]) / turn["pass"] for turn in turns]
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=15, help="timed ones")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data, few = Batches(WARM_UP + options.batches + 1, options.size), Batches(WARM_UP + 2, options.size)
    results = {}
    for adapter in ARGUMENTS:
        one_turn(adapter, few, 0)
        turns = [one_turn(adapter, data, number) for number in range(options.turns)]
        results[adapter] = figures(turns, options.batches)
        print(adapter, json.dumps(results[adapter]), flush=True)
    setting = {name: value for name, value in vars(options).items() if name != "out"}
    setting |= {"machine": platform.machine(), "torch": torch.__version__}
    options.out.write_text(json.dumps({"setting": setting, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
