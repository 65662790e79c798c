"""Resident memory while 200,000 images are corrupted on the fly and streamed.

    python -m benchmarks.memory

Streams the digits under the 15 common corruptions, again and again, through one loader worker, and notes the resident
memory of the process and of its worker (Linux). Writes ``memory.json`` and ``memory.png`` beside this file.
"""

import argparse
import json
import multiprocessing
import os
from pathlib import Path

import matplotlib
import torch
from matplotlib import pyplot

from benchmarks.cifar10.run import CORRUPTIONS
from datamodules import DigitsStream, Recurring

HERE = Path(__file__).parent
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_megabytes(process: int) -> float:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE / 2**20


def stream(samples: int) -> DigitsStream:
    module = DigitsStream(domains=list(CORRUPTIONS), levels="32", num_workers=1)
    module.setup()
    times = -(-samples // (len(module.stream) * len(CORRUPTIONS)))
    repeated = DigitsStream(domains=list(CORRUPTIONS), levels="32", num_workers=1, covariate=Recurring(times))
    repeated.setup()
    return repeated


def measure(samples: int, every: int) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    seen = 0
    for number, batch in enumerate(stream(samples).train_dataloader()):
        seen += len(batch["image"])
        if number % every == 0:
            workers = [resident_megabytes(child.pid) for child in multiprocessing.active_children() if child.pid]
            rows.append({"samples": seen, "main_mb": resident_megabytes(os.getpid()), "worker_mb": sum(workers)})
        if seen >= samples:
            break
    return rows


def growth(rows: list[dict[str, float]], name: str) -> float:
    late = rows[len(rows) // 10 :]
    return late[-1][name] - late[0][name]


def draw(rows: list[dict[str, float]]) -> None:
    matplotlib.use("Agg")
    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    for name, label in (("main_mb", "main process"), ("worker_mb", "loader worker")):
        axes.plot([row["samples"] for row in rows], [row[name] for row in rows], label=label)
    axes.set(xlabel="images streamed", ylabel="resident memory (MiB)", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(HERE / "memory.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--every", type=int, default=25, help="batches between two readings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(options.samples, options.every)
    grown = {name: growth(rows, name) for name in ("main_mb", "worker_mb")}
    (HERE / "memory.json").write_text(json.dumps({"growth_after_a_tenth": grown, "readings": rows}) + "\n")
    draw(rows)
    print(f"{rows[-1]['samples']} images; growth after the first tenth, in MiB: {grown}")


if __name__ == "__main__":
    main()
