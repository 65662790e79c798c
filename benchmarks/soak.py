"""Resident memory over a million adaptation steps.

    python -m benchmarks.soak

Small networks adapt to noisy 8x8 digits, four images at a time, each by a method of its own, step by step in turn,
and a monitor looks on at every eighth step. Notes the resident memory of the process (Linux), and writes ``soak.json``
and ``soak.png`` beside this file as it goes. Passes if memory after the first tenth of the steps stays within 1 %.
"""

import argparse
import gc
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import torch
import torch.nn.functional as F
from matplotlib import pyplot
from sklearn.datasets import load_digits
from torch import Tensor, nn

import tta
from tta.adapters import ExpectationMaximization, LabelShift, LogitAdjustment, Tent
from tta.monitor import StreamMonitor

HERE = Path(__file__).parent
PAGE = os.sysconf("SC_PAGE_SIZE")
ALLOWED = 0.01
MONITORED_EVERY = 8
SAVED_EVERY = 5_000

Model = Callable[[nn.Module, Tensor], tta.OnlineModel]

METHODS: dict[str, Model] = {
    "SAR": lambda network, source: tta.online(network, "sar", lr=1e-4, margin=0.6),
    "EATA": lambda network, source: tta.online(
        network, "eata", lr=1e-4, margin=0.6, redundancy=1.0, source=source.split(64)
    ),
    "LabelShift, Tent, EM over a window": lambda network, source: tta.online(
        network,
        LabelShift(Tent(), LogitAdjustment(), ExpectationMaximization(window=256), source_prior=[1.0] * 10),
        lr=1e-4,
    ),
}


def resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def trained_network(images: Tensor, labels: Tensor) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.GroupNorm(4, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network.eval()


def batches(images: Tensor, labels: Tensor, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Four digits with fresh noise, without end; one batch in a thousand holds a broken image."""
    generator = torch.Generator().manual_seed(seed)
    number = 0
    while True:
        rows = torch.randint(len(images), (4,), generator=generator)
        noisy = images[rows] + 0.3 * torch.randn(4, 1, 8, 8, generator=generator)
        if number % 1000 == 999:
            noisy[0, 0, 0, 0] = float("nan")
        yield noisy, labels[rows]
        number += 1


class Soak:
    """The methods, each with a network, a monitor and the number of batches that taught it something."""

    def __init__(self) -> None:
        data = load_digits()
        images = torch.from_numpy(data.images).float()[:, None] / 16
        labels = torch.from_numpy(data.target).long()
        source = images[:900]
        self.models = {name: make(trained_network(source, labels[:900]), source) for name, make in METHODS.items()}
        self.monitors = {name: StreamMonitor(10, window=500) for name in METHODS}
        self.taught = dict.fromkeys(METHODS, 0)
        self.stream = batches(images[900:], labels[900:])
        self.steps = 0

    def round(self) -> None:
        """One step of every method on the same batch."""
        images, labels = next(self.stream)
        number = self.steps // len(self.models)
        for name, model in self.models.items():
            model(images)
            self.taught[name] += model.last.loss is not None
            if number % MONITORED_EVERY == 0:
                self.monitors[name].update(model.last, labels)
            if number % SAVED_EVERY == 0:
                torch.save([model.state_dict(), self.monitors[name].state_dict()], io.BytesIO())
            self.steps += 1

    def figures(self) -> dict[str, Any]:
        return {
            name: {
                "steps": self.steps // len(self.models),
                "taught": self.taught[name],
                "resets": model.resets,
                "skipped_steps": model.updater.skipped_steps,
                "finite": all(bool(torch.isfinite(p).all()) for p in model.parameters()),
                "accuracy": self.monitors[name].summary()["accuracy"],
                "monitor_updates": self.monitors[name].count("batches"),
            }
            for name, model in self.models.items()
        }


def verdict(rows: list[dict[str, float]], total: int) -> dict[str, Any]:
    late = [row for row in rows if row["steps"] >= total / 10]
    if len(late) < 2:
        return {}
    first, highest = late[0]["resident_mb"], max(row["resident_mb"] for row in late)
    grown = (highest - first) / first
    per_step = (late[-1]["resident_mb"] - first) * 2**20 / (late[-1]["steps"] - late[0]["steps"])
    objects = late[-1]["objects"] - late[0]["objects"]
    return {
        "after_a_tenth_mb": first,
        "highest_later_mb": highest,
        "growth": grown,
        "bytes_per_step": per_step,
        "more_python_objects": objects,
        "passed": late[-1]["steps"] >= total and grown <= ALLOWED,
    }


def draw(rows: list[dict[str, float]]) -> None:
    matplotlib.use("Agg")
    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    axes.plot([row["steps"] / 1000 for row in rows], [row["resident_mb"] for row in rows])
    axes.set(xlabel="adaptation steps (thousands)", ylabel="resident memory (MiB)", ylim=(0, None))
    figure.savefig(HERE / "soak.png", dpi=110)


def write(soak: Soak, rows: list[dict[str, float]], total: int) -> None:
    result = {"steps": soak.steps, **verdict(rows, total), "methods": soak.figures(), "readings": rows}
    beside = HERE / "soak.tmp"
    beside.write_text(json.dumps(result, indent=1) + "\n")
    beside.replace(HERE / "soak.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--readings", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    soak = Soak()
    rows: list[dict[str, float]] = []
    started = time.monotonic()
    while soak.steps < options.steps:
        due = len(rows) * options.steps / options.readings
        soak.round()
        if soak.steps >= due or soak.steps >= options.steps:
            objects = len(gc.get_objects())
            seconds = round(time.monotonic() - started, 1)
            rows.append(
                {"steps": soak.steps, "seconds": seconds, "resident_mb": resident_megabytes(), "objects": objects}
            )
            write(soak, rows, options.steps)
    draw(rows)
    print(json.dumps(verdict(rows, options.steps)))


if __name__ == "__main__":
    main()
