"""Synthetic run folders: what `tta adapt` writes, without a model."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WINDOW = 256
DOMAINS = ("gaussian_noise:5", "motion_blur:5", "fog:5", "jpeg_compression:5")


def _rolling(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Means over the last `WINDOW` samples before each end, along the first axis."""
    total = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])
    starts = np.maximum(ends - WINDOW, 0)
    width = (ends - starts).reshape(-1, *[1] * (values.ndim - 1))
    return (total[ends] - total[starts]) / width


def _entropy(share: np.ndarray) -> np.ndarray:
    return -(share * np.log(np.maximum(share, 1e-12))).sum(axis=1)


def _write_table(file: Path, columns: dict[str, Any]) -> None:
    cells = [
        [("" if isinstance(v, float) and np.isnan(v) else v) for v in np.asarray(c).tolist()] for c in columns.values()
    ]
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        writer.writerows(zip(*cells, strict=True))


def _simulate(o: dict[str, Any]) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(o["seed"])
    n, classes = o["samples"], o["classes"]
    position = np.arange(n)
    labels = np.sort(generator.integers(0, classes, n)) if o["sorted"] else generator.integers(0, classes, n)
    domain = position * len(o["domains"]) // n
    offset = generator.normal(0, 0.08, len(o["domains"]))[domain]

    def guess(accuracy: np.ndarray) -> np.ndarray:
        return np.where(generator.random(n) < accuracy, labels, generator.integers(0, classes, n))

    source = guess(0.58 + offset)
    adapted = guess(0.58 + offset + o["gain"] * np.minimum(1, position / (n / 4)))
    if o["collapse_at"] is not None:
        fallen = np.clip((position - o["collapse_at"]) / (0.12 * n), 0, 0.97)
        adapted = np.where(generator.random(n) < fallen, 3 % classes, adapted)
    confidence = np.clip(generator.beta(6, 2.2, n) + 0.1 * (adapted == labels), 1 / classes, 1)
    return {"label": labels, "domain": domain, "source": source, "adapted": adapted, "confidence": confidence}


def _metrics(o: dict[str, Any], data: dict[str, np.ndarray], ends: np.ndarray) -> dict[str, Any]:
    generator = np.random.default_rng(o["seed"] + 1)
    batches, classes, unknown = len(ends), o["classes"], np.full(len(ends), np.nan)
    hit, source_hit = data["adapted"] == data["label"], data["source"] == data["label"]
    share = _rolling(np.eye(classes)[data["adapted"]], ends)
    source_share = _rolling(np.eye(classes)[data["source"]], ends)
    effective, source_effective = np.exp(_entropy(share)), np.exp(_entropy(source_share))
    known = lambda values, *needs: values if all(o[need] for need in needs) else unknown  # noqa: E731
    accuracy, source_accuracy = _rolling(hit, ends), _rolling(source_hit, ends)
    collapsed = effective < 0.5 * source_effective
    resets = np.array([sum(r < e for r in o["resets"]) for e in ends])
    names = [o["domains"][data["domain"][end - 1]] for end in ends]
    progress = np.linspace(0, 1, batches)
    return {
        "step": np.arange(batches),
        "samples": ends,
        "domain": names,
        "accuracy": known(np.cumsum(hit)[ends - 1] / ends, "labels"),
        "window_accuracy": known(accuracy, "labels"),
        "source_window_accuracy": known(source_accuracy, "labels", "source"),
        "window_accuracy_paired": known(accuracy, "labels", "source"),
        "ece": known(0.1 + 0.02 * progress, "labels"),
        "nll": known(1.1 - 0.2 * progress, "labels"),
        "batch_marginal_entropy": np.clip(_entropy(share) / np.log(classes) - 0.05 * generator.random(batches), 0, 1),
        "marginal_entropy": _entropy(share) / np.log(classes),
        "effective_classes": effective,
        "source_effective_classes": known(source_effective, "source"),
        "top_class_share": share.max(axis=1),
        "source_top_class_share": known(source_share.max(axis=1), "source"),
        "source_agreement": known(_rolling(data["adapted"] == data["source"], ends), "source"),
        "parameter_drift": 0.012 * progress * (1 + 4 * collapsed),
        "gradient_norm": known(np.exp(generator.normal(-0.5, 0.4, batches)) * (1 + 20 * collapsed), "gradients"),
        "reliable_share": known(np.clip(0.4 + 0.2 * progress + generator.normal(0, 0.05, batches), 0, 1), "gradients"),
        "loss": known(0.5 - 0.3 * progress + generator.normal(0, 0.03, batches), "gradients"),
        "resets": resets,
        "flagged": np.zeros(batches, int) + o["flagged"],
        "skipped_steps": np.zeros(batches, int),
        "collapsed": known(collapsed.astype(float), "source"),
        "below_source": known((accuracy < source_accuracy - 0.1).astype(float), "labels", "source"),
        "forwards": 2 * ends,
        "backwards": 2 * ends if o["gradients"] else 0 * ends,
        "adapter/entropy_ema": known(0.6 - 0.5 * progress - 0.1 * collapsed, "gradients"),
    }


def _first(flags: np.ndarray, ends: np.ndarray) -> dict[str, Any]:
    if np.isnan(flags).any():
        return {"on": None, "at": None, "share": None}
    return {
        "on": bool(flags.any()),
        "at": int(ends[np.argmax(flags)]) if flags.any() else None,
        "share": float(flags.mean()),
    }


def _summary(o: dict[str, Any], data: dict[str, np.ndarray], table: dict[str, Any]) -> dict[str, Any]:
    hit, source_hit = data["adapted"] == data["label"], data["source"] == data["label"]
    accuracy = float(hit.mean()) if o["labels"] else None
    source_accuracy = float(source_hit.mean()) if o["labels"] and o["source"] else None
    per_domain = {}
    for index, name in enumerate(o["domains"]):
        here = data["domain"] == index
        per_domain[name] = {
            "samples": int(here.sum()),
            "accuracy": float(hit[here].mean()) if o["labels"] and here.any() else None,
            "source_accuracy": float(source_hit[here].mean()) if source_accuracy is not None and here.any() else None,
        }
    fallen, below = (_first(table[name], table["samples"]) for name in ("collapsed", "below_source"))
    return {
        "adapter": o["adapter"], "adapter_arguments": {"lr": 0.00025}, "model": "TimmClassifier",
        "stream": o["stream"], "order": o["order"], "protocol": "continual", "seed": o["seed"],
        "num_classes": o["classes"], "class_names": o["class_names"] or [f"class {i}" for i in range(o["classes"])],
        "domains": list(o["domains"]), "samples": o["samples"], "batches": len(table["samples"]),
        "accuracy": accuracy, "source_accuracy": source_accuracy, "accuracy_paired": accuracy if o["source"] else None,
        "ece": 0.121 if o["labels"] else None, "nll": 0.93 if o["labels"] else None, "per_domain": per_domain,
        "collapse": {
            "collapsed": fallen["on"], "collapsed_at": fallen["at"], "collapsed_share": fallen["share"],
            "below_source": below["on"], "below_source_at": below["at"], "below_source_share": below["share"],
        },
        "resets": len(o["resets"]), "flagged": o["flagged"], "skipped_steps": 0, "parameter_drift": 0.012,
        "cost": {
            "forwards_per_sample": 2.0, "backwards_per_sample": 2.0 if o["gradients"] else 0.0,
            "forward_equivalents_per_sample": 3.9 if o["gradients"] else 2.0, "seconds": 12.1,
            "samples_per_second": 410.0, "peak_memory_mb": 812.0, "device": "cpu",
        },
        "versions": {"tta": "0.1.0", "torch": "2.9.0"},
    }  # fmt: skip


def write_run(folder: Path, **options: Any) -> Path:
    """Write one synthetic run; the options are the keys below."""
    o: dict[str, Any] = {
        "samples": 2560, "batch": 32, "classes": 10, "domains": DOMAINS, "adapter": "SAR", "stream": "DigitsStream",
        "order": "shuffled", "labels": True, "source": True, "gradients": True, "collapse_at": None, "resets": (),
        "gain": 0.12, "seed": 0, "class_names": None, "sorted": False, "flagged": 0, "summary": {},
        "config": "model:\n  adapter:\n    class_path: tta.adapters.SAR\n",
    } | options  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    data = _simulate(o)
    ends = np.minimum(np.arange(o["batch"], o["samples"] + o["batch"], o["batch"]), o["samples"])
    table = _metrics(o, data, ends)
    seconds = 0.07 + 0.01 * np.random.default_rng(2).random(len(ends))
    seconds[0] = 0.4
    _write_table(folder / "metrics.csv", table)
    _write_table(
        folder / "timing.csv",
        {
            "step": table["step"],
            "seconds": seconds,
            "samples_per_second": np.diff(ends, prepend=0) / seconds,
            "peak_memory_mb": np.full(len(ends), 812.0),
        },
    )
    _write_table(
        folder / "predictions.csv",
        {
            "position": np.arange(o["samples"]),
            "index": np.arange(o["samples"]),
            "domain": [o["domains"][i] for i in data["domain"]],
            "label": data["label"] if o["labels"] else np.full(o["samples"], -1),
            "prediction": data["adapted"],
            "confidence": data["confidence"],
            "source_prediction": data["source"] if o["source"] else [""] * o["samples"],
            "finite": np.ones(o["samples"], int),
        },
    )
    (folder / "summary.json").write_text(json.dumps(_summary(o, data, table) | o["summary"]), encoding="utf-8")
    (folder / "config.yaml").write_text(o["config"], encoding="utf-8")
    return folder


CASES: dict[str, dict[str, Any]] = {
    "healthy": {"resets": (800, 1900)},
    "collapsing": {"adapter": "Tent", "collapse_at": 700, "order": "label_sorted", "sorted": True},
    "unlabelled": {"labels": False},
    "no_source": {"source": False},
    "gradient_free": {"adapter": "BNStats", "gradients": False, "gain": -0.2},
    "one_batch": {"samples": 32, "domains": DOMAINS[:1]},
    "many_classes": {"samples": 3000, "classes": 1000, "domains": tuple(f"corruption_{i}:5" for i in range(50))},
    "batch_of_one": {"samples": 20_000, "batch": 1, "domains": tuple(f"corruption_{i}:5" for i in range(15))},
}


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    return write_run


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder per case, never changed by a test."""
    root = tmp_path_factory.mktemp("runs")
    return {name: write_run(root / name, **options) for name, options in CASES.items()}
