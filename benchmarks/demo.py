"""The main job in one go: train on digits, adapt online over two shifted streams, compare.

    make demo

Trains a small BatchNorm ResNet on clean handwritten digits, then adapts it with every method over twelve corruptions
in turn (continual) and over the same with labels in order (label_sorted), where batch statistics fail. Each run is an
ordinary ``tta adapt`` with a folder of its own; at the end comes one table and one page.
"""

import argparse
import shlex
import shutil
import sys
import time
from pathlib import Path

from tta.cli import main as tta

ADAM = ("--model.optimizer", "torch.optim.Adam", "--model.optimizer.lr", "0.001")
ADAPTERS: dict[str, tuple[str, ...]] = {
    "source": (),
    "bnstats": (),
    "tent": ADAM,
    "eata": (*ADAM, "--model.adapter.redundancy", "0.4", "--model.adapter.fisher_alpha", "1"),
    "sar": ("--model.optimizer.lr", "0.001"),
}
STREAMS = ("continual", "label_sorted")
NETWORK = ("--config", "configs/model/digits_resnet.yaml")


def call(*words: str) -> None:
    print(f"\n$ tta {shlex.join(words)}", flush=True)
    if status := tta(words):
        raise SystemExit(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder, emptied first")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of source training")
    parser.add_argument("--samples", type=int, default=600, help="images per domain, at most 629")
    options = parser.parse_args()
    shutil.rmtree(options.output, ignore_errors=True)
    started = time.perf_counter()
    source = options.output / "source"
    call(
        *("fit", "--config", "configs/data/digits_source.yaml", *NETWORK),
        *("--trainer.max_epochs", str(options.epochs), "--trainer.enable_model_summary", "false"),
        *("--trainer.default_root_dir", str(source)),
    )
    print(f"source model: {time.perf_counter() - started:.0f} s")
    runs = []
    for stream in STREAMS:
        for adapter, settings in ADAPTERS.items():
            runs.append(str(options.output / f"{stream}-{adapter}"))
            call(
                *("adapt", "--config", "configs/data/digits.yaml", "--config", f"configs/stream/{stream}.yaml"),
                *(*NETWORK, "--config", f"configs/adapter/{adapter}.yaml", *settings),
                *("--data.samples_per_domain", str(options.samples), "--model.source_share", "1"),
                *("--model.weights", str(source / "weights.safetensors"), "--trainer.default_root_dir", runs[-1]),
            )
    call("report", *runs, "--output", str(options.output / "comparison.html"))
    print(f"{time.perf_counter() - started:.0f} s in all; open {options.output / 'comparison.html'}")


if __name__ == "__main__":
    sys.exit(main())
