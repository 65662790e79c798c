"""ITTA on digits in four styles, leaving one out: trained on three, adapted to the fourth.

    python -m benchmarks.itta.run --runs runs/itta

For every left-out style and seed: a ResNet-8 is pre-trained with live BatchNorm and then gets a new head (the authors
start from ImageNet features); from there it is trained in four ways for as many epochs: plainly (ERM), with mixed
styles only, by ITTA, and by ITTA without the step that aligns gradients. The ITTA network is then adapted to the stream
of the left-out style, in batches of 32 and of one. The learning rate of a style is chosen on the other three styles,
each as left out of its own training: no label of the target is used. A cell whose file exists is not run again.
"""

import argparse
import copy
import json
import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

import tta
from benchmarks.intervals import interval
from datamodules import CorruptedDomains, Digits, DigitsStream
from models import CifarResNet
from tta.adapters import ITTA
from tta.modules import ITTATraining, SourceTraining

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
BEST = "**ITTA, adapted, batch 32, chosen lr**"
STYLES = ("clean", "gaussian_noise:5", "invert:1", "contrast:5+brightness:5")
SIZE, BATCH, PRETRAINING, EPOCHS = 12, 48, 3, 3
RATES = (3e-4, 1e-3, 3e-3)
BANK_RATES = (3e-5, 3e-4, 1e-3)
SINGLE = 100
"""Images of a stream in batches of one."""
PUBLISHED_RATE = 5e-6
BLOCKS = ["layer1", "layer2", "layer3"]


class Curve(Callback):
    """Gradient correlation of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        value = trainer.callback_metrics.get("train/gradient_correlation_step")
        if value is not None:
            self.values.append(round(float(value), 4))


def fit(module: LightningModule, left_out: str, seed: int, epochs: int, *callbacks: Callback) -> None:
    data = CorruptedDomains(
        Digits(image_size=SIZE),
        [style for style in STYLES if style != left_out],
        levels="digits",
        batches="every_domain",
        batch_size=BATCH,
        seed=seed,
    )
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", limit_val_batches=0, callbacks=list(callbacks), **quiet)
    trainer.fit(module, data)


def stream(style: str, seed: int, batch: int, samples: int | None = None) -> list[dict[str, Tensor]]:
    data = DigitsStream(image_size=SIZE, domains=[style], batch_size=batch, seed=seed, samples_per_domain=samples)
    data.setup("fit")
    return list(data.train_dataloader())


def accuracy(classify: Callable[[Tensor], Tensor], batches: list[dict[str, Tensor]]) -> float:
    right = [classify(batch["image"]).argmax(dim=1) == batch["label"] for batch in batches]
    return 100 * float(torch.cat(right).float().mean())


def source(network: nn.Module) -> tta.OnlineModel:
    return tta.online(copy.deepcopy(network), "source")


def adapted(network: nn.Module, training: ITTATraining, lr: float, **arguments: Any) -> tta.OnlineModel:
    return tta.online(copy.deepcopy(network), ITTA(training.companion(), **arguments), optimizer="adam", lr=lr)


def cell(left_out: str, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    start = CifarResNet(8)
    adam = lambda parameters: torch.optim.Adam(parameters, lr=1e-3)  # noqa: E731
    fit(SourceTraining(start, adam, num_classes=10), left_out, seed, PRETRAINING)
    start.linear.reset_parameters()
    result: dict[str, Any] = {"seconds": {}}
    target = stream(left_out, seed, 32)
    single = stream(left_out, seed, 1, SINGLE)

    def trained(name: str, make: Callable[[nn.Module], LightningModule]) -> Any:
        began, curve = time.process_time(), Curve()
        module = make(copy.deepcopy(start))
        fit(module, left_out, seed, EPOCHS, curve)
        result["seconds"][name] = round(time.process_time() - began, 1)
        result[name] = accuracy(source(module.backbone), target)
        if curve.values:
            result[f"{name} correlation"] = curve.values
        return module

    # After three epochs the running statistics of BatchNorm are not worth freezing.
    common: dict[str, Any] = {
        "blocks": BLOCKS,
        "input_shape": (3, SIZE, SIZE),
        "freeze_batch_norm": False,
        "lr": 1e-3,
        "consistency_lr": 1e-3,
        "seed": seed,
    }
    trained("erm", lambda network: SourceTraining(network, adam, num_classes=10))
    trained("mixstyle", lambda network: ITTATraining(network, consistency=0.0, num_classes=10, **common))
    trained("unaligned", lambda network: ITTATraining(network, alignment=0.0, num_classes=10, **common))
    training = trained("itta", lambda network: ITTATraining(network, num_classes=10, **common))
    network = training.backbone
    for lr in RATES:
        result[f"batch 32, lr {lr:g}"] = accuracy(adapted(network, training, lr), target)
    for lr in BANK_RATES:
        result[f"bank, lr {lr:g}"] = accuracy(adapted(network, training, lr, style_source="bank"), target)
    result["per channel, lr 0.001"] = accuracy(adapted(network, training, 1e-3, affine="channel"), target)
    result["itta, single"] = accuracy(source(network), single)
    for lr in (1e-5, 1e-4):
        result[f"batch 1, bank, lr {lr:g}"] = accuracy(adapted(network, training, lr, style_source="bank"), single)
    for name, batches in (("1", single), ("32", target)):
        online, frozen = adapted(network, training, PUBLISHED_RATE, released_protocol=True), source(network)
        pairs = [(online(batch["image"]), frozen(batch["image"])) for batch in batches]
        result[f"released, batch {name}, largest change"] = max(float((a - b).abs().max()) for a, b in pairs)
        right = [a.argmax(dim=1) == batch["label"] for (a, _), batch in zip(pairs, batches, strict=True)]
        result[f"released, batch {name}"] = 100 * float(torch.cat(right).float().mean())
    return result


def cells(runs: Path, seeds: int) -> list[list[dict[str, Any]]]:
    """Results of every cell, by seed and left-out style."""
    table = []
    for seed in range(seeds):
        row = []
        for number, left_out in enumerate(STYLES):
            file = runs / f"{number}-{seed}.json"
            if not file.exists():
                print(left_out, seed, flush=True)
                result = cell(left_out, seed)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(result, indent=1))
            row.append(json.loads(file.read_text()))
        table.append(row)
    return table


def chosen(row: list[dict[str, Any]], prefix: str, rates: tuple[float, ...]) -> list[float]:
    """Accuracy of each left-out style at the rate that is best on the other styles, each as left out."""
    keys = [f"{prefix}, lr {rate:g}" for rate in rates]
    picked = []
    for number in range(len(row)):
        others = [result for place, result in enumerate(row) if place != number]
        picked.append(row[number][max(keys, key=lambda key: sum(result[key] for result in others))])
    return picked


def rows_of(row: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Accuracy on each left-out style, by line of the table, of one seed."""
    plain = {
        "ERM, not adapted": "erm",
        "mixed styles only, not adapted": "mixstyle",
        "ITTA without alignment, not adapted": "unaligned",
        "ITTA, not adapted": "itta",
    }
    lines = {name: [result[key] for result in row] for name, key in plain.items()}
    lines[BEST] = chosen(row, "batch 32", RATES)
    for rate in RATES:
        lines[f"ITTA, adapted, batch 32, lr {rate:g}"] = [result[f"batch 32, lr {rate:g}"] for result in row]
    lines["the same per channel, lr 0.001"] = [result["per channel, lr 0.001"] for result in row]
    lines["ITTA, adapted, batch 32, styles of the bank, chosen lr"] = chosen(row, "bank", BANK_RATES)
    lines["released protocol, batch 32"] = [result["released, batch 32"] for result in row]
    lines[f"ITTA, not adapted, first {SINGLE}"] = [result["itta, single"] for result in row]
    for rate in (1e-5, 1e-4):
        name = f"batch 1, bank, lr {rate:g}"
        lines[f"ITTA, adapted, {name}, first {SINGLE}"] = [result[name] for result in row]
    lines[f"released protocol, batch 1, first {SINGLE}"] = [result["released, batch 1"] for result in row]
    return lines


def report(table: list[list[dict[str, Any]]]) -> str:
    lines = [rows_of(row) for row in table]
    text = [f"| {' | '.join(['accuracy, %', *STYLES, 'mean'])} |", "|" + "---|" * (len(STYLES) + 2)]
    for name in lines[0]:
        columns = [[row[name][place] for row in lines] for place in range(len(STYLES))]
        means = [statistics.mean(row[name]) for row in lines]
        text.append(f"| {' | '.join([name, *map(interval, columns), interval(means)])} |")
    gains = differences(lines, BEST, "ITTA, not adapted")
    text += ["", f"Adapted minus not adapted, batch 32, chosen lr, mean of the styles: {interval(gains)} points."]
    pairs = [pair for row in lines for pair in zip(row["ITTA, not adapted"], row[BEST], strict=True)]
    better, worse = sum(b > a for a, b in pairs), sum(b < a for a, b in pairs)
    text += [f"Of {len(pairs)} seeds and styles {better} gain and {worse} lose."]
    ends = [[statistics.mean(r[f"{k} correlation"][-56:]) for k in ("itta", "unaligned")] for row in table for r in row]
    text += [f"Gradient correlation of the last epoch: above that without alignment in {sum(a > b for a, b in ends)}."]
    changes = [result[f"released, batch {size}, largest change"] for row in table for result in row for size in (1, 32)]
    text += [f"Released protocol (Adam, lr {PUBLISHED_RATE:g}): largest change of a logit {max(changes):.1e}."]
    for name in ("itta", "unaligned"):
        start, end = (
            interval([100 * statistics.mean(part(r[f"{name} correlation"]) for r in row) for row in table])
            for part in (lambda c: statistics.mean(c[:20]), lambda c: statistics.mean(c[-56:]))
        )
        text += [f"Gradient correlation x 100, {name}: first 20 steps {start}, last epoch {end}."]
    seconds = {
        name: statistics.mean(r["seconds"][name] for row in table for r in row) for name in table[0][0]["seconds"]
    }
    text += ["Seconds of one core per training: " + ", ".join(f"{k} {v:.0f}" for k, v in seconds.items()) + "."]
    return "\n".join(text) + "\n"


def differences(lines: list[dict[str, list[float]]], one: str, other: str) -> list[float]:
    return [statistics.mean(row[one]) - statistics.mean(row[other]) for row in lines]


def draw(table: list[list[dict[str, Any]]]) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.8))
    for name, colour in (("itta", "tab:blue"), ("unaligned", "tab:grey")):
        curves = torch.tensor([r[f"{name} correlation"] for row in table for r in row])
        smooth = curves.unfold(1, 20, 1).mean(dim=2)
        mean, spread = smooth.mean(dim=0), smooth.std(dim=0) / math.sqrt(len(smooth))
        steps = range(20, 20 + len(mean))
        label = "aligned" if name == "itta" else "f_w left as it is"
        axes[0].plot(steps, mean, color=colour, label=label)
        axes[0].fill_between(steps, mean - 2 * spread, mean + 2 * spread, color=colour, alpha=0.2)
    axes[0].set(xlabel="training step", ylabel="gradient correlation (mean of 20 steps)", title="Training")
    axes[0].legend()
    lines = [rows_of(row) for row in table]
    shown = (
        "ERM, not adapted",
        "mixed styles only, not adapted",
        "ITTA, not adapted",
        BEST,
    )
    for place, name in enumerate(shown):
        means = [statistics.mean(row[name][style] for row in lines) for style in range(len(STYLES))]
        spots = [style + 0.2 * place for style in range(len(STYLES))]
        axes[1].bar(spots, means, 0.19, label=name.strip("*"))
    axes[1].set_xticks(
        [style + 0.3 for style in range(len(STYLES))], [s.replace("+", "\n+") for s in STYLES], fontsize=8
    )
    axes[1].set(ylim=(0, 130), yticks=range(0, 101, 20), ylabel="accuracy, %", title="Left-out style")
    axes[1].legend(fontsize=7, loc="upper center", ncols=2, frameon=False)
    figure.tight_layout()
    figure.savefig(HERE / "results.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/itta"), help="where the cells go")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    table = cells(options.runs, options.seeds)
    (HERE / "results.json").write_text(json.dumps(table, indent=1) + "\n")
    (HERE / "results.md").write_text(report(table))
    draw(table)
    print(report(table))


if __name__ == "__main__":
    main()
