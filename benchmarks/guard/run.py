"""A mild stream on which entropy minimisation collapses, with and without the guard, and what estimates say of it.

    python -m benchmarks.guard.run --runs runs/guard

CIFAR-10's 10,000 test images as JPEG files with Gaussian noise of standard deviation 0.08, in random order, batches of
64, the ResNet-20 with GroupNorm, SGD with learning rate 1e-3 and momentum 0.9. Each cell is kept; those that exist are
not measured again.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

import tta
from benchmarks.zoo.run import Estimates, joined, network, source_pairs
from datamodules import ImageFolderStream
from tta.adapters import SAR, Adapter, Guard, Source, Tent

HERE = Path(__file__).parent
WINDOW = 500
ROWS: dict[str, Callable[[], Adapter]] = {
    "Source": Source,
    "Tent": Tent,
    "SAR": SAR,
    "SAR as published": lambda: SAR(published=True),
}
COLOURS = {"Source": "black", "Tent": "#c2542d", "SAR": "#2d6fa3", "SAR as published": "#5c8a3a"}


def run(options: argparse.Namespace, name: str, seed: int, guarded: bool) -> dict[str, Any]:
    data = ImageFolderStream(
        str(options.data / "cifar10/test"), domains=["gaussian_noise:3"], seed=seed, levels="32", batch_size=64
    )
    images, labels, _ = joined(data)
    source = source_pairs(options)
    adapter = Guard(ROWS[name]()) if guarded else ROWS[name]()
    online = tta.online(network(options, "GN"), adapter, source=source, lr=1e-3)
    estimates = None if guarded else Estimates(online, source)
    correct = []
    for x, y in zip(images.split(64), labels.split(64), strict=True):
        logits = online(x)
        correct.append(logits.argmax(dim=1) == y)
        if estimates is not None:
            estimates.update(x, logits, y)
    right = torch.cat(correct).float()
    return {
        "accuracy": float(right.mean()),
        "windows": [float(part.mean()) for part in right.split(WINDOW)],
        "notes": adapter.notes(),
        "estimates": estimates.track.summary() if estimates is not None else {},
    }


def measured(options: argparse.Namespace) -> dict[tuple[str, bool], list[dict[str, Any]]]:
    found: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for seed in range(options.seeds):
        for name in ROWS:
            for guarded in (False, True) if name != "Source" else (False,):
                file = options.runs / f"{name.replace(' ', '-')}-{seed}{'-guarded' if guarded else ''}.json"
                if not file.exists():
                    file.write_text(json.dumps(run(options, name, seed, guarded)))
                found.setdefault((name, guarded), []).append(json.loads(file.read_text()))
                print(name, seed, guarded, found[name, guarded][-1]["accuracy"], flush=True)
    return found


def average(cells: list[dict[str, Any]] | None) -> str:
    if cells is None:
        return "-"
    values = [100 * cell["accuracy"] for cell in cells]
    return f"{statistics.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})"


def report(found: dict[tuple[str, bool], list[dict[str, Any]]]) -> str:
    lines = [
        "| method | without guard (each seed) | with guard (each seed) | last 500 without / with |",
        "|---|---|---|---|",
    ]
    for name in ROWS:
        ends = [
            f"{100 * statistics.mean(cell['windows'][-1] for cell in found[name, flag]):.1f}"
            for flag in (False, True)
            if (name, flag) in found
        ]
        both = (average(found.get((name, flag))) for flag in (False, True))
        lines.append(f"| {name} | {' | '.join(both)} | {' / '.join(ends)} |")
    lines += ["", "Label-free estimates without the guard, over windows of 256 samples:", ""]
    lines += ["| method | estimate | mean absolute error, points | correlation with the truth |", "|---|---|---|---|"]
    for name in ROWS:
        for estimate in found[name, False][0]["estimates"]:
            rows = [cell["estimates"][estimate] for cell in found[name, False]]
            errors = ", ".join(f"{100 * row['mean_absolute_error']:.1f}" for row in rows)
            related = ", ".join(f"{row['correlation']:+.2f}" for row in rows if row["correlation"] is not None)
            lines.append(f"| {name} | {estimate.replace('_', ' ')} | {errors} | {related or '-'} |")
    lines += ["", "What the guard says (seed 0):", ""]
    lines += [f"- {name}: {note}" for name in ROWS for note in found.get((name, True), [{"notes": []}])[0]["notes"]]
    return "\n".join(lines) + "\n"


def draw(found: dict[tuple[str, bool], list[dict[str, Any]]], file: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 4))
    for (name, guarded), cells in found.items():
        windows = [100 * value for value in cells[0]["windows"]]
        places = [WINDOW * (number + 0.5) for number in range(len(windows))]
        label = f"{name}, guarded" if guarded else name
        axes.plot(places, windows, color=COLOURS[name], linestyle="-" if guarded else "--", label=label)
    axes.set_xlabel("samples of the stream")
    axes.set_ylabel(f"accuracy over {WINDOW} samples, %")
    axes.legend(frameon=False, fontsize=8, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of cifar10/ and the weights")
    parser.add_argument("--runs", type=Path, default=Path("runs/guard"), help="where cells are kept")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.runs.mkdir(parents=True, exist_ok=True)
    found = measured(options)
    (HERE / "results.md").write_text(report(found))
    (HERE / "results.json").write_text(json.dumps({f"{a}, guarded {b}": c for (a, b), c in found.items()}) + "\n")
    draw(found, HERE / "guard.png")


if __name__ == "__main__":
    main()
