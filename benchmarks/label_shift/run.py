"""The label-shift adapter on long-tailed CIFAR-10, against Tent, the post-hoc correction and the true prior.

    python -m benchmarks.label_shift.run --runs runs/label_shift

Per seed: a ResNet-14 trained on CIFAR-10-LT of ratio 100 at 16x16, the adapter's network on it, both by ``tta fit``;
then nine streams, {clean, noise, contrast} x {forward-50, uniform, backward-50}, and one whose long tail is in another
order of the classes, which no degree of imbalance describes. Each method starts at the source on each stream; online,
batches of 64. A result that is in the runs folder is not measured again. Hyper-parameters were chosen on held-out
source images of seed 0, resampled to other priors, clean and with noise; while trainings were compared, accuracies on
the streams of seed 0 were printed too. Held-out images are balanced, 500 of each class.
"""

import argparse
import copy
import json
import shlex
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

import tta
from benchmarks.intervals import interval
from datamodules import ImageFolderStream, LongTailed, Prior, Shuffled
from models import CifarResNet
from tta.adapters import (
    Adapter,
    BlackBox,
    BNStats,
    CalibratedDegree,
    ExpectationMaximization,
    LabelShift,
    LogitAdjustment,
    MovingAverage,
    OraclePrior,
    Source,
    Tent,
)
from tta.cli import main as tta_main
from tta.companion import Companion
from tta.modules import load_weights

HERE = Path(__file__).parent
CORRUPTIONS = {"clean": "clean", "noise": "gaussian_noise:3", "contrast": "contrast:3"}
PRIORS = ("forward", "uniform", "backward")
CELLS = [(corruption, prior) for corruption in CORRUPTIONS for prior in PRIORS]
OTHER = [("noise", "other")]
BATCH = 64
ESTIMATORS: dict[str, Callable[[], Any]] = {
    "EMA": MovingAverage,
    "EM": ExpectationMaximization,
    "BBSE": BlackBox,
    "degree": CalibratedDegree,
}
NETWORK = (
    *("--config", "configs/model/cifar10_resnet20.yaml", "--model.backbone.init_args.depth", "14"),
    *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--trainer.devices", "1"),
)


def call(*words: str) -> None:
    print("tta", shlex.join(words), flush=True)
    if status := tta_main(words):
        raise SystemExit(status)


def images(data: Path, seed: int) -> tuple[str, ...]:
    return (
        *("--config", "configs/data/cifar10_folder_source.yaml", "--data.train_root", str(data / "cifar10/train")),
        *("--data.image_size", "16", "--data.batch_size", "64", "--data.num_workers", "0", "--data.seed", str(seed)),
        *("--data.imbalance", "exponential", "--data.imbalance_ratio", "100", "--data.imbalance_seed", str(seed)),
        *("--seed_everything", str(seed)),
    )


def trained(options: argparse.Namespace, seed: int) -> tuple[CifarResNet, Companion]:
    """The source network and the companion of a seed; trained where their files are missing."""
    source, adapter = (options.runs / f"seed{seed}" / name for name in ("source", "adapter"))
    if not (source / "weights.safetensors").exists():
        schedule = ("--model.lr_scheduler", "torch.optim.lr_scheduler.CosineAnnealingLR", "--model.lr_scheduler.T_max")
        words = ("fit", *images(options.data, seed), *NETWORK, *schedule, "30", "--trainer.max_epochs", "30")
        shutil.rmtree(source, ignore_errors=True)  # of a run that was cut
        call(*words, "--trainer.default_root_dir", str(source))
    weights = source / "weights.safetensors"
    if not (adapter / "companion.safetensors").exists():
        words = ("fit", "--config", "configs/training/label_shift.yaml", *images(options.data, seed), *NETWORK)
        shutil.rmtree(adapter, ignore_errors=True)
        call(*words, "--model.weights", str(weights), "--trainer.default_root_dir", str(adapter))
    model = CifarResNet(depth=14)
    load_weights(model, weights)
    return model, Companion.load(adapter / "companion.safetensors", "LabelShift")


def other_prior(seed: int) -> list[float]:
    """A long tail of ratio 50 over the classes in a random order."""
    weights = (1 / 50) ** (np.random.default_rng(seed).permutation(10) / 9)
    return [float(weight) for weight in weights / weights.sum()]


def stream(options: argparse.Namespace, seed: int, corruption: str, prior: str) -> tuple[Tensor, Tensor]:
    """Images ``(N, 3, 16, 16)`` and labels ``(N,)`` in the order of the stream."""
    schedule = {
        "forward": LongTailed(50),
        "backward": LongTailed(50, "backward"),
        "other": Prior(other_prior(seed)),
        "uniform": Shuffled(),
    }[prior]
    data = ImageFolderStream(
        str(options.data / "cifar10/test"),
        image_size=16,
        domains=[CORRUPTIONS[corruption]],
        levels="32",
        labels=schedule,
        samples_per_domain=1500 if prior == "uniform" else 6000,  # a long tail keeps about 1650 of these
        seed=seed,
        batch_size=BATCH,
    )
    data.setup("fit")
    batches = list(data.train_dataloader())
    return torch.cat([batch["image"] for batch in batches]), torch.cat([batch["label"] for batch in batches])


def methods(companion: Companion, truth: list[float]) -> dict[str, Callable[[], Adapter]]:
    """Makers of the rows of the table."""
    rows: dict[str, Callable[[], Adapter]] = {"source": Source, "BN statistics": BNStats, "Tent": Tent}
    estimators = {**ESTIMATORS, "true prior": lambda: OraclePrior(truth)}
    for name, estimator in estimators.items():
        rows[f"Tent + post-hoc, {name}"] = lambda made=estimator: LabelShift(
            Tent(), LogitAdjustment(), made(), companion
        )
    for name, estimator in estimators.items():
        rows[f"Tent + adapter, {name}"] = lambda made=estimator: LabelShift(Tent(), None, made(), companion)
    rows["BN statistics + adapter, degree"] = lambda: LabelShift(BNStats(), None, CalibratedDegree(), companion)
    return rows


def run(model: CifarResNet, adapter: Adapter, x: Tensor, y: Tensor) -> dict[str, Any]:
    online = tta.online(copy.deepcopy(model), adapter, optimizer="adam", lr=1e-3)
    correct, degrees = 0, []
    for part, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
        correct += int((online(part).argmax(dim=1) == labels).sum())
        degrees += [float(value) for name, value in online.last.scalars.items() if name == "degree_of_imbalance"]
    result = {"accuracy": 100 * correct / len(y)}
    if isinstance(adapter, LabelShift):
        truth = torch.bincount(y, minlength=10) / len(y)
        result |= {"error": float((adapter.estimator.prior - truth).abs().sum()), "degrees": degrees}
    return result


def measure(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """All cells of a seed: ``cell -> row -> result``."""
    file = options.runs / f"seed{seed}" / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    model, companion = trained(options, seed)
    for corruption, prior in [*CELLS, *OTHER]:
        cell = results.setdefault(f"{corruption} {prior}", {})
        x, y = stream(options, seed, corruption, prior)
        truth = torch.bincount(y, minlength=10).double() / len(y)
        for name, make in methods(companion, truth.tolist()).items():
            if name not in cell:
                cell[name] = run(model, make(), x, y)
                file.write_text(json.dumps(results))
        print(seed, corruption, prior, {name: round(value["accuracy"], 1) for name, value in cell.items()}, flush=True)
    return results


# ---- the tables ------------------------------------------------------------------------------------------------------


def accuracy(seed: dict[str, Any], row: str, cells: list[tuple[str, str]]) -> float:
    return statistics.fmean(seed[f"{corruption} {prior}"][row]["accuracy"] for corruption, prior in cells)


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows]) + "\n"


def summary(seeds: list[dict[str, Any]]) -> str:
    """Means over the three corruptions."""
    groups = [*([(corruption, prior) for corruption in CORRUPTIONS] for prior in PRIORS), CELLS, OTHER]
    head = ["", "forward-50", "uniform", "backward-50", "nine streams", "another order"]
    names = list(seeds[0]["clean forward"])
    return table(head, [[n, *(interval([accuracy(s, n, g) for s in seeds]) for g in groups)] for n in names])


def accuracies(seeds: list[dict[str, Any]], cells: list[tuple[str, str]]) -> str:
    head = ["", *(f"{corruption}, {prior}" for corruption, prior in cells), "mean"]
    groups = [*([cell] for cell in cells), cells]
    names = list(seeds[0]["clean forward"])
    return table(head, [[n, *(interval([accuracy(s, n, g) for s in seeds]) for g in groups)] for n in names])


def differences(seeds: list[dict[str, Any]]) -> str:
    """What is gained over Tent and over the post-hoc correction, per seed and then averaged."""
    pairs = [
        ("Tent + adapter, degree", "Tent"),
        ("Tent + adapter, EMA", "Tent"),
        ("Tent + adapter, degree", "Tent + post-hoc, EMA"),
        ("Tent + adapter, degree", "Tent + post-hoc, degree"),
        ("Tent + adapter, EMA", "Tent + post-hoc, EMA"),
        ("Tent + adapter, true prior", "Tent + post-hoc, true prior"),
        ("Tent + adapter, true prior", "Tent + adapter, degree"),
    ]
    groups = [*([cell] for cell in CELLS), CELLS]
    head = ["difference", *(f"{corruption}, {prior}" for corruption, prior in CELLS), "mean"]
    rows = []
    for better, worse in pairs:
        gains = [[accuracy(s, better, g) - accuracy(s, worse, g) for s in seeds] for g in groups]
        rows.append([f"{better} - {worse}", *(interval(values) for values in gains)])
    return table(head, rows)


def errors(seeds: list[dict[str, Any]]) -> str:
    cells = [*CELLS, *OTHER]
    head = ["L1 error of the last estimate", *(f"{corruption}, {prior}" for corruption, prior in cells)]
    names = [f"Tent + {part}, {name}" for part in ("post-hoc", "adapter") for name in ESTIMATORS]
    means = {(n, c, p): statistics.fmean(s[f"{c} {p}"][n]["error"] for s in seeds) for n in names for c, p in cells}
    return table(head, [[name, *(f"{means[name, c, p]:.2f}" for c, p in cells)] for name in names])


def draw(seed: dict[str, Any]) -> None:
    """Degree of imbalance along the noisy streams, by estimator."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), sharey=True)
    for axis, prior in zip(axes, PRIORS, strict=True):
        cell = seed[f"noise {prior}"]
        for name in ESTIMATORS:
            axis.plot(cell[f"Tent + adapter, {name}"]["degrees"], label=name)
        axis.axhline(cell["Tent + adapter, true prior"]["degrees"][0], color="black", linestyle="--", label="truth")
        axis.set(title=f"noise, {prior}", xlabel="batch of 64")
    axes[0].set_ylabel("degree of imbalance")
    axes[-1].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(HERE / "degree.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of cifar10/")
    parser.add_argument("--runs", type=Path, default=Path("runs/label_shift"), help="where trained networks go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    seeds = [measure(options, seed) for seed in options.seeds]
    parts = {
        f"Accuracy in %, mean and 95 % interval over seeds {options.seeds}": summary(seeds),
        "Stream by stream": accuracies(seeds, CELLS),
        "Differences in points": differences(seeds),
        "Error of the estimates": errors(seeds),
    }
    (HERE / "results.md").write_text("\n".join(f"## {title}\n\n{text}" for title, text in parts.items()))
    short = [
        {c: {n: {k: v for k, v in r.items() if k != "degrees"} for n, r in rows.items()} for c, rows in seed.items()}
        for seed in seeds
    ]
    by_seed = dict(zip(map(str, options.seeds), short, strict=True))
    (HERE / "results.json").write_text(json.dumps(by_seed, indent=1) + "\n")
    draw(seeds[0])


if __name__ == "__main__":
    main()
