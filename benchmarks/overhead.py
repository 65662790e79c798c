"""What the Lightning host costs over the bare ``OnlineModel`` loop: records, monitor, checkpoints and all.

    python -m benchmarks.overhead

Both adapt timm's ``resnet18`` to the same random 32x32 images at batch 64, in turn, in one process; the ratio of
their times is taken pair by pair. The host runs with its defaults: CSV records, monitor, frozen source model,
progress bar, a checkpoint every 100 batches. Every sample teaches (margins are wide), so that each method does all
its passes.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import timm
import torch
from pytorch_lightning import Callback, LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

import tta
from tta.modules import OnlineAdaptation
from tta.online import OPTIMIZERS
from tta.trainer import StreamTrainer

ARGUMENTS: dict[str, dict[str, float]] = {
    "tent": {},
    "eata": {"margin": 1.1, "redundancy": 1.1, "fisher_alpha": 0.0},
    "sar": {"margin": 1.1, "reset_threshold": 0.0},
}
WARM_UP = 3


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
        self.count = count
        self.domains = ["random"]

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]


class Clock(Callback):
    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.starts.append(time.perf_counter())


def make(adapter: str) -> tta.OnlineModel:
    torch.manual_seed(0)
    return tta.online(timm.create_model("resnet18", num_classes=10), adapter, **ARGUMENTS[adapter])


def bare(adapter: str, data: Batches) -> float:
    model = make(adapter)
    started = 0.0
    for position, batch in enumerate(data.train_dataloader()):
        if position == WARM_UP:
            started = time.perf_counter()
        if position == data.count - 1:
            break
        model(batch["image"])
    return time.perf_counter() - started


def hosted(adapter: str, data: Batches) -> float:
    made, clock = make(adapter), Clock()
    host = OnlineAdaptation(made.model, made.adapter, OPTIMIZERS["sgd"], num_classes=10)
    with tempfile.TemporaryDirectory() as folder:
        trainer = StreamTrainer(
            default_root_dir=folder, callbacks=[clock], accelerator="cpu", logger=False, enable_model_summary=False
        )
        trainer.adapt(host, data)
    return clock.starts[data.count - 1] - clock.starts[WARM_UP]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=104)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = Batches(options.batches, options.size)
    results = {}
    for adapter in ARGUMENTS:
        pairs = [(bare(adapter, data), hosted(adapter, data)) for _ in range(options.repeats + 1)][1:]
        ratios = sorted(host / plain for plain, host in pairs)
        results[adapter] = {
            "bare_seconds": statistics.median(plain for plain, _ in pairs),
            "hosted_seconds": statistics.median(host for _, host in pairs),
            "ratio_median": statistics.median(ratios),
            "ratio_range": [ratios[0], ratios[-1]],
        }
        print(adapter, json.dumps(results[adapter]), flush=True)
    setting = {**vars(options), "machine": platform.machine(), "torch": torch.__version__}
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps({"setting": setting, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
