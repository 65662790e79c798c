"""Adapt CIFAR-10 networks to their test images as JPEG files: under 15 corruptions, and over streams of every order.

    python -m benchmarks.cifar10.run corruptions --runs runs/cifar10
    python -m benchmarks.cifar10.run orders --runs runs/cifar10

``corruptions``: the 15 common corruptions at severity 5 with the published CIFAR parameters, back to the source at
each, two ResNet-20s and a small vision transformer. ``orders``: five corruptions in every order with the GroupNorm
ResNet-20, with a picture of each stream. Every cell is an ordinary ``tta adapt`` call, kept beside the results; a cell
whose run folder is complete is not run again. The transformer is trained by

    tta fit --config configs/data/cifar10_folder_source.yaml --config configs/model/cifar10_vit.yaml \\
        --trainer.max_epochs 10 --model.lr_scheduler torch.optim.lr_scheduler.CosineAnnealingLR \\
        --model.lr_scheduler.T_max 10 --trainer.default_root_dir runs/cifar10_vit
"""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from datamodules.stored_corruptions import STANDARD as CORRUPTIONS
from tta.cli import main as tta_main

HERE = Path(__file__).parent
FIVE = ("gaussian_noise", "defocus_blur", "frost", "contrast", "pixelate")
ADAM = ("--model.optimizer", "torch.optim.Adam", "--model.optimizer.lr", "0.001")
ADAPTERS: dict[str, tuple[str, ...]] = {
    "source": (),
    "bnstats": (),
    "tent": ADAM,
    "eata": (*ADAM, "--model.adapter.redundancy", "0.4", "--model.adapter.fisher_alpha", "1"),
    "sar": ("--model.optimizer.lr", "0.001"),
}
NETWORKS = {
    "ResNet-20 BN": ("cifar10_resnet20", "resnet20_cifar10.safetensors"),
    "ResNet-20 GN": ("cifar10_resnet20_gn", "resnet20_gn8_cifar10jpeg.safetensors"),
    "ViT": ("cifar10_vit", "vit_cifar10jpeg.safetensors"),
}
COMPARED = ("source", "tent", "sar")
ACCURACY = ("--data.covariate.accuracy", "0.75")
ORDERS: dict[str, tuple[str, ...]] = {
    "per-domain reset": ("continual", "--model.protocol", "per_domain"),
    "continual": ("continual",),
    "hidden boundaries": ("hidden_boundaries",),
    "gradual": ("gradual",),
    "mixed": ("mixed",),
    "correlated": ("correlated",),
    "mixed and correlated": ("mixed_correlated",),
    "label sorted": ("label_sorted",),
    "recurring": ("recurring",),
    "drift, constant severity": ("drift",),
    "drift, constant accuracy": ("drift", "--data.covariate.baseline", "{baseline}", *ACCURACY),
    "long-tailed": ("long_tailed",),
    "prior ramp": ("prior_ramp",),
    "prior switch": ("prior_switch",),
    "imbalance ratio": ("imbalance_ratio",),
    "late labels": ("late_labels",),
    "batch size 1": ("batch_size_one",),
}


def call(*words: str) -> None:
    print("tta", shlex.join(words), flush=True)
    if status := tta_main(words):
        raise SystemExit(status)


def run(words: tuple[str, ...], folder: Path, commands: list[str]) -> dict[str, Any]:
    commands.append(f"tta {shlex.join(words)}")
    if not (folder / "summary.json").exists():
        call(*words, "--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", str(folder))
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    kept = ("accuracy", "source_accuracy", "ece", "samples", "collapse", "resets", "cost", "per_domain")
    return {name: summary[name] for name in kept}


def stream_words(data: Path, domains: tuple[str, ...], samples: int) -> tuple[str, ...]:
    return (
        *("--config", "configs/data/cifar10_folder.yaml", "--data.root", str(data / "cifar10/test")),
        *("--data.source_root", str(data / "cifar10/train"), "--data.domains", f"[{', '.join(domains)}]"),
        *("--data.samples_per_domain", str(samples), "--data.num_workers", "0"),
    )


def host_words(data: Path, network: str, adapter: str, settings: tuple[str, ...]) -> tuple[str, ...]:
    model, weights = NETWORKS[network]
    return (
        *("--config", f"configs/model/{model}.yaml", "--config", f"configs/adapter/{adapter}.yaml", *settings),
        *("--model.weights", str(data / weights), "--trainer.limit_val_batches", "0"),
    )


def corruptions(options: argparse.Namespace) -> str:
    results, commands = {}, []
    stream = stream_words(options.data, CORRUPTIONS, options.samples)
    draw(stream, "corruptions")
    for network in NETWORKS:
        for adapter, settings in ADAPTERS.items():
            if adapter == "bnstats" and network != "ResNet-20 BN":
                continue
            words = (
                *("adapt", *stream, "--data.batch_size", "200"),
                *host_words(options.data, network, adapter, settings),
                *("--data.source_samples", "2000", "--model.protocol", "per_domain"),
            )
            folder = options.runs / "corruptions" / f"{NETWORKS[network][0]}-{adapter}"
            results[f"{network}, {adapter}"] = run(words, folder, commands)
    store("corruptions", results, commands)
    names = [name.partition(":")[0] for name in next(iter(results.values()))["per_domain"]]
    head = ["network, adapter", *names, "mean", "ECE", "collapsed", "resets", "passes"]
    rows = []
    for key, summary in results.items():
        accuracies = [100 * row["accuracy"] for row in summary["per_domain"].values()]
        cells = [f"{value:.1f}" for value in (*accuracies, sum(accuracies) / len(accuracies))]
        rows.append([key, *cells, f"{summary['ece']:.3f}", collapsed(summary), str(summary["resets"]), passes(summary)])
    return table(head, rows)


def measure_baseline(options: argparse.Namespace, commands: list[str]) -> Path:
    words = (
        *("adapt", *stream_words(options.data, FIVE, 200)),
        *("--data.covariate", "Grid", "--data.covariate.levels", "[0, 1, 2, 3, 4, 5]"),
        *host_words(options.data, "ResNet-20 GN", "source", ()),
    )
    folder = options.runs / "orders" / "baseline"
    run(words, folder, commands)
    return folder / "summary.json"


def step(adapter: str, part: str) -> tuple[str, ...]:
    rate = "0.0000156" if part == "batch_size_one" else "0.00025"
    return () if adapter == "source" else ("--model.optimizer.lr", rate)


def draw(stream: tuple[str, ...], stem: str) -> None:
    picture = HERE / "streams" / f"{stem}.png"
    if not picture.exists():
        call("stream", *stream, "--output", str(picture))


def orders(options: argparse.Namespace) -> str:
    results: dict[str, dict[str, Any]] = {}
    commands: list[str] = []
    baseline = str(measure_baseline(options, commands))
    for name, (part, *settings) in ORDERS.items():
        stem = name.replace(",", "").replace(" ", "_")
        filled = tuple(word.format(baseline=baseline) for word in settings)
        stream = (
            *(*stream_words(options.data, FIVE, options.samples), "--config", f"configs/stream/{part}.yaml"),
            *(*(("--data.samples_per_domain", "200") if part == "batch_size_one" else ()), *filled),
        )
        draw(stream, stem)
        for adapter in COMPARED:
            words = ("adapt", *stream, *host_words(options.data, "ResNet-20 GN", adapter, step(adapter, part)))
            results[f"{name}, {adapter}"] = run(words, options.runs / "orders" / f"{stem}-{adapter}", commands)
    store("orders", results, commands)
    rows = []
    for name in ORDERS:
        cells = [results[f"{name}, {adapter}"] for adapter in COMPARED]
        flags = [f"{adapter} {collapsed(cell)}" for adapter, cell in zip(COMPARED, cells, strict=True)]
        accuracies = [f"{100 * cell['accuracy']:.1f}" for cell in cells]
        picture = f"[picture](streams/{name.replace(',', '').replace(' ', '_')}.png)"
        rows.append(
            [
                name,
                str(cells[0]["samples"]),
                *accuracies,
                "; ".join(flag for flag in flags if not flag.endswith(" no")) or "no",
                picture,
            ]
        )
    return table(["stream", "samples", *COMPARED, "collapsed", "stream's picture"], rows)


def collapsed(summary: dict[str, Any]) -> str:
    at = summary["collapse"]["collapsed_at"]
    return "no" if at is None else f"at {at}"


def passes(summary: dict[str, Any]) -> str:
    cost = summary["cost"]
    return f"{cost['forwards_per_sample']:.1f} + {cost['backwards_per_sample']:.1f}"


def store(name: str, results: dict[str, dict[str, Any]], commands: list[str]) -> None:
    (HERE / f"{name}.json").write_text(json.dumps({"commands": commands, "results": results}, indent=1) + "\n")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("corruptions", "orders"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of cifar10/ and the weights")
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar10"), help="where the run folders go")
    parser.add_argument("--samples", type=int, default=1000, help="images per domain")
    options = parser.parse_args()
    text = {"corruptions": corruptions, "orders": orders}[options.what](options)
    (HERE / f"{options.what}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
