"""SADE on CIFAR-10-LT: do the mixing weights follow a test prior that nobody told, and what is it worth?

    python -m benchmarks.sade.run --runs runs/sade

Training images: CIFAR-10 as JPEG files at 16x16, imbalance ratio 100. Networks: a ResNet-8 with three experts
(``tau`` 1, and 2 to show the failure), and the same network with one branch and ordinary cross entropy. Streams: the
test images with the training prior sharpened to ratio 50 (forward-50), mirrored (backward-50), and uniform. Trained by
``tta fit``, adapted by ``tta.online``. The weight of the entropy option is chosen on held-out training images.
A cell whose file exists is not run again.
"""

import argparse
import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import tta
from benchmarks.intervals import interval
from datamodules import ImageFolderSource, ImageFolderStream, LongTailed, Shuffled
from models import MultiExpertCifarResNet
from tta.adapters import Transductive
from tta.cli import main as tta_main
from tta.modules import load_weights

HERE = Path(__file__).parent
SEEDS = {"plain": (0, 1, 2), "tau1": (0, 1, 2), "tau2": (0,)}
EPOCHS = 15
BATCH = 64
"""As in the authors' online script; transductive steps have 128 images, as in theirs for CIFAR."""
UNIFORM_IMAGES = 4000
STREAMS = {"forward-50": LongTailed(50, "forward"), "uniform": Shuffled(), "backward-50": LongTailed(50, "backward")}
OPTIMIZER = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
MODES: dict[str, dict[str, Any]] = {"online": {}, "transductive": {"transductive": Transductive()}}
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Candidates for the weight of the entropy option."""
Cell = dict[str, Any]
Batches = list[tuple[Tensor, Tensor]]


def train(options: argparse.Namespace, kind: str, seed: int) -> MultiExpertCifarResNet:
    """A trained network: ``plain``, or ``tau1`` and ``tau2`` with experts."""
    folder = options.runs / f"{kind}-{seed}"
    plain = kind == "plain"
    if not (folder / "weights.safetensors").exists():
        part = () if plain else ("--config", "configs/training/experts.yaml", "--model.tau", kind.removeprefix("tau"))
        sgd = ("--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.1", "--model.optimizer.momentum")
        words = (
            *("fit", *part, "--config", "configs/data/cifar10_long_tailed_source.yaml"),
            *("--config", "configs/model/cifar10_experts.yaml", "--seed_everything", str(seed)),
            *("--model.backbone.depth", "8", "--model.backbone.reduce_dimension", "true"),
            *(("--model.backbone.num_experts", "1", "--model.backbone.head", "linear") if plain else ()),
            *((*sgd, "0.9", "--model.optimizer.nesterov", "true", "--model.optimizer.weight_decay", "5e-4") * plain),
            *("--model.lr_scheduler", "torch.optim.lr_scheduler.CosineAnnealingLR"),
            *("--model.lr_scheduler.T_max", str(EPOCHS), "--trainer.max_epochs", str(EPOCHS)),
            *("--data.train_root", str(options.data / "train"), "--data.image_size", "16"),
            *("--data.num_workers", "0", "--data.seed", str(seed), "--trainer.default_root_dir", str(folder)),
            *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
            *("--trainer.check_val_every_n_epoch", str(EPOCHS)),
        )
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was cut
        print("tta", *words, flush=True)
        if status := tta_main(words):
            raise SystemExit(status)
    experts = {"num_experts": 1, "head": "linear"} if plain else {"num_experts": 3}
    model = MultiExpertCifarResNet(8, 10, **experts)
    load_weights(model, folder / "weights.safetensors")
    return model.eval()


def test_batches(options: argparse.Namespace, stream: str, seed: int) -> Batches:
    data = ImageFolderStream(
        str(options.data / "test"),
        image_size=16,
        labels=STREAMS[stream],
        samples_per_domain=UNIFORM_IMAGES if stream == "uniform" else None,
        batch_size=BATCH,
        seed=seed,
    )
    data.setup()
    return [(batch["image"], batch["label"]) for batch in data.train_dataloader()]


def heldout_batches(options: argparse.Namespace) -> Batches:
    data = ImageFolderSource(str(options.data / "train"), image_size=16, batch_size=BATCH)
    data.setup()
    images, labels = (torch.cat([batch[key] for batch in data.val_dataloader()]) for key in ("image", "label"))
    rows = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:UNIFORM_IMAGES]
    return list(zip(images[rows].split(BATCH), labels[rows].split(BATCH), strict=True))


def accuracy(answers: list[Tensor], batches: Batches) -> float:
    right = [answer.argmax(dim=-1) == label for answer, (_, label) in zip(answers, batches, strict=True)]
    return 100 * float(torch.cat(right).float().mean())


def adapted(model: torch.nn.Module, batches: Batches, mode: str, entropy_weight: float, seed: int) -> Cell:
    own = {**OPTIMIZER, **MODES[mode], "entropy_weight": entropy_weight, "seed": seed}
    online = tta.online(copy.deepcopy(model), "sade", **own)
    if mode == "transductive":
        online.observe_target([image for image, _ in batches])
    answers, weights = [], []
    for image, _ in batches:
        answers.append(online(image))
        weights.append([round(float(weight), 4) for weight in online.adapter.mixture()])
    return {"accuracy": accuracy(answers, batches), "weights": weights if mode == "online" else weights[-1:]}


def averaged(model: torch.nn.Module, batches: Batches) -> float:
    source = tta.online(copy.deepcopy(model), "source")
    return accuracy([source(image) for image, _ in batches], batches)


def each_expert(model: MultiExpertCifarResNet, batches: Batches) -> list[float]:
    with torch.no_grad():
        logits = [model.expert_logits(image) for image, _ in batches]
    return [accuracy([answer[:, expert] for answer in logits], batches) for expert in range(model.num_experts)]


def cell(options: argparse.Namespace, name: str, make: Callable[[], Cell]) -> Cell:
    path = options.runs / "cells" / f"{name}.json"
    if not path.exists():
        print("cell", name, flush=True)
        result = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result))
    stored: Cell = json.loads(path.read_text())
    return stored


def measure(options: argparse.Namespace, kind: str, stream: str, seed: int, entropy_weight: float) -> Cell:
    model, batches = train(options, kind, seed), test_batches(options, stream, seed)
    if kind == "plain":
        return {"plain": averaged(model, batches)}
    result: Cell = {"average": averaged(model, batches), "experts": each_expert(model, batches)}
    for mode in MODES:
        result[mode] = adapted(model, batches, mode, 0.0, seed)
        result[f"{mode}, entropy"] = adapted(model, batches, mode, entropy_weight, seed)
    return result


def candidate(options: argparse.Namespace) -> Cell:
    model, batches = train(options, "tau1", 0), heldout_batches(options)
    return {
        "average": averaged(model, batches),
        **{
            mode: {str(weight): adapted(model, batches, mode, weight, 0)["accuracy"] for weight in WEIGHTS}
            for mode in MODES
        },
    }


def choose(uniform: Cell) -> float:
    """The weight that does best on uniform held-out images, both modes together."""
    return max(WEIGHTS, key=lambda weight: sum(uniform[mode][str(weight)] for mode in MODES))


def rows(cells: dict[str, list[Cell]], plain: dict[str, list[Cell]]) -> list[list[str]]:
    figures: dict[str, Callable[[Cell], float]] = {
        "experts, average (un-adapted)": lambda c: c["average"],
        "head expert alone": lambda c: c["experts"][0],
        "uniform expert alone": lambda c: c["experts"][1],
        "tail expert alone": lambda c: c["experts"][2],
        "SADE online": lambda c: c["online"]["accuracy"],
        "SADE transductive": lambda c: c["transductive"]["accuracy"],
        "SADE online, entropy option": lambda c: c["online, entropy"]["accuracy"],
        "SADE transductive, entropy option": lambda c: c["transductive, entropy"]["accuracy"],
    }
    table = [["plain source (cross entropy)", *(interval([c["plain"] for c in plain[name]]) for name in STREAMS)]]
    for title, figure in figures.items():
        table.append([title, *(interval([figure(c) for c in cells[name]]) for name in STREAMS)])
    return table


def differences(cells: dict[str, list[Cell]]) -> list[list[str]]:
    """Points over the average of the same network, and the final weights of every seed."""
    table = []
    for mode in (mode + option for option in ("", ", entropy") for mode in MODES):
        gains = [interval([c[mode]["accuracy"] - c["average"] for c in cells[name]]) for name in STREAMS]
        final = ["; ".join("/".join(f"{w:.2f}" for w in c[mode]["weights"][-1]) for c in cells[n]) for n in STREAMS]
        table += [[f"{mode}: points over the average", *gains], [f"{mode}: final weights of each seed", *final]]
    return table


def table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines]) + "\n"


def draw(cells: dict[str, list[Cell]]) -> None:
    figure, axes = plt.subplots(1, len(STREAMS), figsize=(10, 3), sharey=True)
    for axis, (name, results) in zip(axes, cells.items(), strict=True):
        for expert, (label, colour) in enumerate((("head", "C0"), ("uniform", "C2"), ("tail", "C3"))):
            for number, result in enumerate(results):
                curve = [weights[expert] for weights in result["online"]["weights"]]
                axis.plot(curve, color=colour, alpha=0.8, label=f"{label} expert" if number == 0 else None)
        axis.set(title=name, xlabel=f"batch of {BATCH}", ylim=(0, 1))
    axes[0].set_ylabel("mixing weight, online")
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(HERE / "weights.png", dpi=110)


def report(options: argparse.Namespace) -> None:
    heldout = cell(options, "heldout", lambda: candidate(options))
    weight = choose(heldout)
    kinds: dict[str, dict[str, list[Cell]]] = {kind: {} for kind in ("plain", "tau1", "tau2")}
    for kind, results in kinds.items():
        for name in STREAMS:
            results[name] = [
                cell(options, f"{kind}-{name}-{seed}", lambda k=kind, n=name, s=seed: measure(options, k, n, s, weight))
                for seed in SEEDS[kind]
            ]
    (HERE / "results.json").write_text(
        json.dumps({"entropy_weight": weight, "heldout": heldout, "cells": kinds}, indent=1) + "\n"
    )
    head = ["accuracy in %, mean of 3 seeds ± 95 % t-interval", *STREAMS]
    alone = ["accuracy in %, seed 0", *STREAMS]
    lines = [
        [mode, f"{heldout['average']:.1f}", *(f"{heldout[mode][str(weight)]:.1f}" for weight in WEIGHTS)]
        for mode in MODES
    ]
    text = (
        f"# SADE on CIFAR-10-LT (ratio 100, 16x16, {EPOCHS} epochs)\n\n## tau 1\n\n"
        + table(head, rows(kinds["tau1"], kinds["plain"]) + differences(kinds["tau1"]))
        + "\nWeights are head/uniform/tail. ![weights](weights.png)\n\n## tau 2: the failure of a short training\n\n"
        + table(alone, rows(kinds["tau2"], kinds["plain"])[1:] + differences(kinds["tau2"]))
        + f"\n## Choice of the entropy option's weight: {weight:g}\n\nIt does best on uniform held-out training images "
        + "(seed 0, tau 1), both modes together.\n\n"
        + table(["uniform held-out images", "average", *(f"weight {w:g}" for w in WEIGHTS)], lines)
    )
    (HERE / "results.md").write_text(text)
    draw(kinds["tau1"])
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/cifar10"), help="folder of train/ and test/")
    parser.add_argument("--runs", type=Path, default=Path("runs/sade"), help="where networks and cells go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report(options)


if __name__ == "__main__":
    main()
