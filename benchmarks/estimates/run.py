"""How far label-free estimates of accuracy lie from the truth, where adaptation helps and where it collapses.

    python -m benchmarks.estimates.run --data data --runs runs/estimates

Digits: a ResNet-8 trained here, four corruptions in turn. CIFAR-10: the GroupNorm ResNet-20 on test images with
Gaussian noise (standard deviation 0.08). Tent and SAR, at a step at which they are healthy and at one at which they
collapse. Every cell is an ordinary ``tta adapt`` call; a cell whose run folder is complete is not run again. The
threshold of thresholded confidence comes from clean images that the network was not trained on; on CIFAR-10 the stream
shows a part of them, with noise.
"""

import argparse
import csv
import json
import shlex
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tta.cli import main as tta_main

HERE = Path(__file__).parent
TITLES = {
    "aetta": "AETTA, rate 0.2",
    "aetta_2": "AETTA, rate from source",
    "generalized_disagreement": "generalised disagreement",
    "average_confidence": "average confidence",
    "thresholded_confidence": "thresholded confidence",
}
INTRODUCTION = """# Estimates of accuracy against the truth

Means over seeds, in points of accuracy. Under each estimate: mean absolute error of its mean over the last 256 samples
against the accuracy on them, and the correlation of the two over the windows of a run (none: one of them never moved).
Made by `python -m benchmarks.estimates.run`; the commands and every cell are in `results.json`.
"""
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.limit_val_batches", "0")
SETTINGS = {
    "digits": {"healthy": "0.001", "collapsing": "0.1"},
    "cifar10": {"healthy": "0.00025", "collapsing": "0.004"},
}


def call(*words: str) -> None:
    print("tta", shlex.join(words), flush=True)
    if status := tta_main(words):
        raise SystemExit(status)


def digits_words(runs: Path, samples: int) -> tuple[str, ...]:
    source = runs / "digits-source"
    model = ("--config", "configs/model/digits_resnet8.yaml")
    if not (source / "weights.safetensors").exists():
        call(
            *("fit", "--config", "configs/data/digits_source.yaml", *model, "--trainer.max_epochs", "10"),
            *("--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", str(source)),
        )
    return (
        *("--config", "configs/data/digits.yaml", *model, "--model.weights", str(source / "weights.safetensors")),
        *("--data.domains", "[gaussian_noise, contrast, occlusion, defocus_blur]"),
        *("--data.samples_per_domain", str(min(600, samples // 4)), "--data.severity", "3"),
    )


def cifar_words(data: Path, samples: int) -> tuple[str, ...]:
    return (
        *("--config", "configs/data/cifar10_folder.yaml", "--data.root", str(data / "cifar10/test")),
        *("--data.source_root", str(data / "cifar10/test"), "--data.source_samples", "1000"),
        *("--data.domains", "[gaussian_noise]", "--data.severity", "3", "--data.num_workers", "0"),
        *("--data.samples_per_domain", str(samples), "--config", "configs/model/cifar10_resnet20_gn.yaml"),
        *("--model.weights", str(data / "resnet20_gn8_cifar10jpeg.safetensors")),
    )


def measure(options: argparse.Namespace) -> None:
    results: dict[str, Any] = {}
    commands: list[str] = []
    streams = {"cifar10": partial(cifar_words, options.data), "digits": partial(digits_words, options.runs)}
    cells = product(range(options.seeds), streams.items(), ("tent", "sar"), ("healthy", "collapsing"))
    for seed, (stream, words_of), adapter, setting in cells:
        folder = options.runs / f"{stream}-{adapter}-{setting}-{seed}"
        command = (
            *("adapt", *words_of(options.samples), "--config", f"configs/adapter/{adapter}.yaml"),
            *("--model.optimizer.lr", SETTINGS[stream][setting], "--data.seed", str(seed), *QUIET),
            *("--config", "benchmarks/estimates/estimates.yaml"),
            *("--trainer.default_root_dir", str(folder)),
        )
        commands.append(f"tta {shlex.join(command)}")
        if not (folder / "summary.json").exists():
            call(*command)
        results[f"{stream}, {adapter}, {setting}, seed {seed}"] = cell(folder)
        store(results, commands)


def store(results: dict[str, Any], commands: list[str]) -> None:
    (HERE / "results.json").write_text(json.dumps({"results": results, "commands": commands}, indent=1) + "\n")
    (HERE / "results.md").write_text(f"{INTRODUCTION}\n{table(results)}\n\n![Seed 0](results.png)\n")


def cell(folder: Path) -> dict[str, Any]:
    summary = json.loads((folder / "summary.json").read_text())
    curve = [row for row in read(folder) if row["samples"] >= 256]
    kept = {name: summary[name] for name in ("samples", "accuracy", "source_accuracy", "estimates", "collapse")}
    return {**kept, "first_window": curve[0]["window_accuracy"], "last_window": curve[-1]["window_accuracy"]}


def read(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open() as file:
        return [
            {name: float(cell) for name, cell in row.items() if cell and name != "domain"}
            for row in csv.DictReader(file)
        ]


def table(results: dict[str, Any]) -> str:
    head = ["stream, method, setting", "accuracy", "window first → last", *TITLES.values()]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for key in dict.fromkeys(name.rsplit(",", 1)[0] for name in results):
        rows = [row for name, row in results.items() if name.startswith(f"{key}, ")]
        mean = {
            name: 100 * np.mean([row[name] for row in rows]) for name in ("accuracy", "first_window", "last_window")
        }
        cells = [key, f"{mean['accuracy']:.1f}", f"{mean['first_window']:.1f} → {mean['last_window']:.1f}"]
        for name in TITLES:
            cells.append(compared([row["estimates"][name] for row in rows]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compared(rows: list[dict[str, Any]]) -> str:
    error = 100 * np.mean([row["mean_absolute_error"] for row in rows])
    known = [row["correlation"] for row in rows if row["correlation"] is not None]
    return f"{error:.1f}, " + (f"{np.mean(known):+.2f}" if known else "none")


def draw(runs: Path) -> None:
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, 4, sharey=True)
    for row, stream in zip(grid, SETTINGS, strict=True):
        cells = [(adapter, setting) for adapter in ("tent", "sar") for setting in SETTINGS[stream]]
        for axes, (adapter, setting) in zip(row, cells, strict=True):
            curve = read(runs / f"{stream}-{adapter}-{setting}-0")
            samples = [step["samples"] for step in curve]
            for name, title in TITLES.items():
                axes.plot(
                    samples, [step[f"window_estimate/{name}"] for step in curve], "--", linewidth=1.3, label=title
                )
            axes.plot(samples, [step["window_accuracy"] for step in curve], "k", linewidth=1.8, label="accuracy")
            axes.set_title(f"{stream}, {adapter}, {setting}", fontsize=9)
            axes.set_ylim(0, 1.03)
            axes.grid(axis="y", alpha=0.3)
    figure.supxlabel("samples seen (seed 0); means over the last 256", fontsize=9)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=9)
    figure.savefig(HERE / "results.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with cifar10/ and the weights")
    parser.add_argument("--runs", type=Path, default=Path("runs/estimates"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2048, help="images of a stream")
    options = parser.parse_args()
    measure(options)
    draw(options.runs)


if __name__ == "__main__":
    main()
