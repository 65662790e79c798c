"""Adapters on CIFAR-10 under corruption: five kinds of stream, three networks, with and without a guard.

    python -m benchmarks.zoo.run measure --runs runs/zoo            # resumable; --share 0/2 and 1/2 use two processes
    python -m benchmarks.zoo.run table --runs runs/zoo

Streams of five corruptions at severity 5 on the test images as JPEG files, 320 images of each, batches of 64;
``batch size one`` has 100 of each. ``correlated``: labels of a domain in Dirichlet slots, gamma 0.1. Hyper-parameters
are the published ones for CIFAR (``configs/adapter/*_cifar10.yaml``), published for batches of 200; nothing was tuned
on these streams, but the guard's estimate of the class balance was changed after it had failed on one of them. At batch
size one learning rates are divided by 32, SAR's rule. RDumb resets every ten batches instead of every thousand, since
the streams have 25; CoTTA and MEMO draw 8 views instead of 32, and MEMO, which takes each image by itself, sees a fifth
of each stream. NOTE runs on a network that was not trained with IABN. The guard holds 256 training images with labels.
On streams without it, label-free estimates are compared with the accuracy over windows of 256 samples.

The transformer is that of benchmarks/cifar10/run.py, stopped after seven of its ten epochs (--trainer.max_epochs 7).
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tta
from datamodules import Dirichlet, ImageFolderStream
from models import CifarResNet, TimmClassifier
from tta.adapters import (
    CMF,
    EATA,
    ETA,
    LAME,
    MEMO,
    NOTE,
    ROID,
    SAR,
    SHOT,
    T3A,
    Adapter,
    BNStats,
    CoTTA,
    DeYO,
    Guard,
    RDumb,
    RoTTA,
    Source,
    Tent,
)
from tta.adapters.augmix_views import AugMixViews
from tta.estimates import AETTA, AverageConfidence, AverageThresholdedConfidence
from tta.modules import load_weights
from tta.monitor import CostMeter
from tta.monitor.estimates import EstimateTrack
from tta.resets import AdaptedClassifier

CORRUPTIONS = ("gaussian_noise", "defocus_blur", "frost", "contrast", "pixelate")
SETTINGS = ("per-domain", "continual", "mixed", "correlated", "batch size one")
ADAM = {"optimizer": "adam", "lr": 1e-3}
ROWS: dict[str, tuple[Callable[[], Adapter], dict[str, Any]]] = {
    "Source": (Source, {}),
    "BNStats": (BNStats, {}),
    "Tent": (Tent, ADAM),
    "EATA": (lambda: EATA(redundancy=0.4, fisher_alpha=1.0), ADAM),
    "SAR": (SAR, {"lr": 1e-3}),
    "DeYO": (lambda: DeYO(plpd_threshold=0.2), ADAM),
    "ROID": (ROID, ADAM),
    "CMF": (CMF, ADAM),
    "SHOT": (SHOT, {"optimizer": "adam", "lr": 5e-5}),
    "RoTTA": (RoTTA, ADAM),
    "LAME": (LAME, {}),
    "T3A": (T3A, {}),
    "ETA": (lambda: ETA(redundancy=0.4), ADAM),
    "RDumb": (lambda: RDumb(every=10, redundancy=0.4), ADAM),
    "NOTE": (NOTE, {"optimizer": "adam", "lr": 1e-4}),
    "CoTTA": (lambda: CoTTA(threshold=0.92, restore=0.01, loss="cross_entropy", views_count=8), ADAM),
    "MEMO": (lambda: MEMO(count=8, views=AugMixViews(crop="padded")), {"lr": 5e-3, "momentum": 0.0}),
}
NETWORKS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "BN": ("resnet20_cifar10.safetensors", CifarResNet),
    "GN": ("resnet20_gn8_cifar10jpeg.safetensors", lambda: CifarResNet(norm="group")),
    "ViT": (
        "vit_cifar10jpeg.safetensors",
        lambda: TimmClassifier(
            "vit_tiny_patch16_224",
            num_classes=10,
            arguments={"img_size": 32, "patch_size": 4, "embed_dim": 96, "depth": 6, "num_heads": 3},
        ),
    ),
}
SLOW = ("CoTTA", "MEMO")
WINDOW = 256
Stream = tuple[Tensor, Tensor, Tensor]


def network(options: argparse.Namespace, name: str) -> nn.Module:
    file, make = NETWORKS[name]
    model = make()
    load_weights(model, options.data / file)
    return model.eval()


def joined(data: ImageFolderStream) -> Stream:
    data.setup("fit")
    batches = list(data.train_dataloader())
    images, labels, domains = (torch.cat([batch[key] for batch in batches]) for key in ("image", "label", "domain"))
    return images, labels, domains


def stream(options: argparse.Namespace, setting: str, seed: int) -> Stream:
    """Images ``(N, 3, 32, 32)``, labels and domains in the order of a stream; kept, as drawing it takes a while."""
    file = options.runs / f"stream-{setting.replace(' ', '-')}-{seed}.pt"
    if not file.exists():
        extra: dict[str, Any] = {"order": "mixed"} if setting == "mixed" else {}
        if setting == "correlated":
            extra["labels"] = Dirichlet(0.1)
        data = ImageFolderStream(
            str(options.data / "cifar10/test"),
            domains=list(CORRUPTIONS),
            samples_per_domain=100 if setting == "batch size one" else 320,
            seed=seed,
            **extra,
        )
        torch.save(joined(data), file)
    whole: Stream = torch.load(file, weights_only=True)
    return whole


def source_pairs(options: argparse.Namespace) -> list[tuple[Tensor, Tensor]]:
    file = options.runs / "source.pt"
    if not file.exists():
        data = ImageFolderStream(
            str(options.data / "cifar10/train"), domains=["clean"], samples_per_domain=1000, seed=5
        )
        torch.save(joined(data), file)
    images, labels, _ = torch.load(file, weights_only=True)
    return list(zip(images.split(64), labels.split(64), strict=True))


def batches(whole: Stream, size: int) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Images, labels, and whether a known domain begins; domains are whole numbers of batches."""
    images, labels, domains = whole
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        yield images[rows], labels[rows], start > 0 and bool(domains[start] != domains[start - 1])


class Estimates:
    """Label-free estimates beside one adapting model, and how far they lie from the truth."""

    def __init__(self, online: tta.OnlineModel, source: list[tuple[Tensor, Tensor]]) -> None:
        self.classifier = AdaptedClassifier(online.adapter, online.model)
        self.estimates = [AETTA(), AverageConfidence(), AverageThresholdedConfidence()]
        self.track = EstimateTrack([estimate.name for estimate in self.estimates], WINDOW)
        self.correct: list[float] = []
        for estimate in self.estimates:
            if estimate.needs_source_labels:
                estimate.observe_source(self.classifier, iter(source))

    def update(self, x: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.correct += (logits.argmax(dim=1) == labels).float().tolist()
        recent = self.correct[-WINDOW:]
        values = [float(estimate.update(self.classifier, x, logits)) for estimate in self.estimates]
        self.track.update(values, len(x), sum(recent) / len(recent))


def run(options: argparse.Namespace, row: str, setting: str, name: str, seed: int, guarded: bool) -> dict[str, Any]:
    images, labels, domains = stream(options, setting, seed)
    if row == "MEMO":
        images, labels, domains = images[::5], labels[::5], domains[::5]
    make, optimizer = ROWS[row]
    single = setting == "batch size one"
    if single and "lr" in optimizer:
        optimizer = {**optimizer, "lr": optimizer["lr"] / 32}
    source = source_pairs(options)
    adapter = Guard(make()) if guarded else make()
    resets = "per_domain" if setting == "per-domain" else "continual"
    online = tta.online(network(options, name), adapter, source=source, resets=resets, **optimizer)
    estimates = None
    if seed == 0 and not (guarded or single or row in (*SLOW, "NOTE")):
        estimates = Estimates(online, source)
    meter = CostMeter(online.model)
    correct, started = [], time.process_time()
    size = 1 if single else 64
    for x, y, new_domain in batches((images, labels, domains), size):
        if new_domain:
            online.new_domain()
        logits = online(x)
        correct.append(logits.argmax(dim=1) == y)
        if estimates is not None:
            with meter.paused():
                estimates.update(x, logits, y)
    right = torch.cat(correct).float()
    return {
        "accuracy": float(right.mean()),
        "last_quarter": float(right[-len(right) // 4 :].mean()),
        "samples": len(right),
        "finite": all(bool(torch.isfinite(p).all()) for p in online.model.parameters()),
        "forwards": meter.forwards / len(right),
        "backwards": meter.backwards / len(right),
        "seconds": time.process_time() - started,
        "notes": adapter.notes(),
        "estimates": estimates.track.summary() if estimates is not None else {},
    }


def cells(seeds: int) -> Iterator[tuple[str, str, str, int, bool]]:
    """Seed by seed, the transformer after the convolutional networks; further seeds without the slow rows."""
    for seed in range(seeds):
        for names in (("BN", "GN"), ("ViT",)):
            for row, (make, _) in ROWS.items():
                if row in SLOW and seed > 0:
                    continue
                for name in names:
                    if name != "BN" and make().facts.needs_batch_norm:
                        continue
                    for setting in SETTINGS:
                        for guarded in (False, True) if row != "Source" else (False,):
                            yield row, setting, name, seed, guarded


def path(options: argparse.Namespace, row: str, setting: str, name: str, seed: int, guarded: bool) -> Path:
    stem = f"{name}-{row}-{setting.replace(' ', '-')}-{seed}{'-guarded' if guarded else ''}"
    folder: Path = options.runs / "cells"
    return folder / f"{stem}.json"


def measure(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    (options.runs / "cells").mkdir(parents=True, exist_ok=True)
    share, shares = (int(part) for part in options.share.split("/"))
    for number, cell in enumerate(cells(options.seeds)):
        file = path(options, *cell)
        if options.only and (options.only == "guarded") != cell[4]:
            continue
        if number % shares != share or file.exists() or not (options.data / NETWORKS[cell[2]][0]).exists():
            continue
        try:
            result = run(options, *cell)
        except tta.InputError as error:
            result = {"refused": str(error)}
        file.write_text(json.dumps(result))
        print(*cell, {k: v for k, v in result.items() if k not in ("notes", "estimates")}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "table"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of cifar10/ and the weights")
    parser.add_argument("--runs", type=Path, default=Path("runs/zoo"), help="where streams and cells are kept")
    parser.add_argument("--seeds", type=int, default=5, help="streams per setting")
    parser.add_argument("--only", choices=("plain", "guarded"), help="measure this half of the cells only")
    parser.add_argument("--share", default="0/1", help="which share of the cells this process measures, such as 0/2")
    options = parser.parse_args()
    if options.what == "measure":
        measure(options)
        return
    from benchmarks.zoo.table import write

    write(options.runs, {cell: path(options, *cell) for cell in cells(options.seeds)})


if __name__ == "__main__":
    main()
