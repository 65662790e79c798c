"""Measure agreement with the published corruptions, and speed against imagecorruptions.

    python -m benchmarks.corruptions.run --reference-python reference/bin/python [--images FOLDER]

``reference.py`` says how to make the reference environment. Images are photographs that scikit-image ships, or a
folder's. Statistics of many images under many draws are compared (``measures.py``), and those of the reference with
itself under other draws: the noise floor. Within 5 % in all four measures counts as agreement. Speed is that of one
thread each, in turn, on the same images of 224 pixels: from what a decoder gives (uint8, channels last) to what a
network takes (float32, channels first, in [0, 1]). ``--only`` measures one of the two and keeps the other. Writes
``results.json`` and ``results.md`` beside this file, and the picture ``docs/corruptions.png``.
"""

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.corruptions.measures import Array, differences, measure, quantise
from benchmarks.corruptions.report import draw_picture, write_tables
from datamodules.corruptions import CORRUPTIONS, Domain, corrupt
from datamodules.corruptions.registry import LEVELS, parameters

HERE = Path(__file__).parent
SIZES = (32, 64, 224)
NAMES = [name for name in CORRUPTIONS if name in LEVELS["224"]]
DETERMINISTIC = {
    "gaussian_blur", "defocus_blur", "zoom_blur", "contrast", "brightness", "saturate", "pixelate", "jpeg_compression",
}  # fmt: skip
DRAWS = {"motion_blur": 8, "snow": 4, "frost": 16, "fog": 24, "spatter": 4, "elastic_transform": 12}
"""Of each image at 224 pixels, twice as many at fewer; two of every other stochastic corruption."""
ROUNDS = 3
BATCH = 32


class Reference:
    """The worker in the reference interpreter."""

    def __init__(self, python: str, folder: str) -> None:
        self.folder = Path(folder)
        self.images = str(self.folder / "images.npz")
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.corruptions.worker"],
            cwd=HERE.parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, do: str, **command: Any) -> None:
        assert self.process.stdin
        print(json.dumps({"do": do, **command}), file=self.process.stdin, flush=True)

    def receive(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def ask(self, do: str, **command: Any) -> Any:
        self.send(do, **command)
        return self.receive()


def apply_ours(images: Tensor, name: str, severity: int, size: int, draw: int) -> Tensor:
    indices = range(draw * len(images), (draw + 1) * len(images))
    return corrupt(images, Domain(((name, severity),)), 0, indices, str(size))


def to_tensor(images: Array) -> Tensor:
    channels_first = torch.from_numpy(images).permute(0, 3, 1, 2)
    return channels_first.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def to_levels(images: Tensor) -> Array:
    return quantise(images.permute(0, 2, 3, 1).numpy())


def compare(reference: Reference, clean: Array, name: str, size: int, severity: int, draws: int) -> dict[str, Any]:
    """Measure one corruption of one set at one severity."""
    common = {"images": reference.images, "size": size, "name": name, "severity": severity, "draws": draws}
    common |= {"parameters": parameters(name, severity, str(size))}
    for seed in (1, 2):  # the worker does the second while we are at ours
        reference.send("corrupt", **common, seed=seed, path=str(reference.folder / f"{seed}.npz"))
    images = to_tensor(clean)
    batches = [to_levels(apply_ours(images, name, severity, size, draw)) for draw in range(draws)]
    own = np.concatenate([measure(clean, batch) for batch in batches])
    made_by, _ = reference.receive(), reference.receive()
    first, second = (np.load(reference.folder / f"{seed}.npz") for seed in (1, 2))
    row: dict[str, Any] = {"name": name, "size": size, "severity": severity, "reference": made_by}
    both = np.concatenate([first["measures"], second["measures"]])
    row |= {"difference": differences(own, both), "floor": differences(first["measures"], second["measures"])}
    if name in DETERMINISTIC:
        pixels = np.abs(batches[0].astype(int) - first["first"])
        row["pixels"] = {"mean": float(pixels.mean()), "max": int(pixels.max())}
    return row


def compare_all(reference: Reference) -> list[dict[str, Any]]:
    rows = []
    with np.load(reference.images) as file:
        images = {size: file[str(size)] for size in SIZES}
    for name in NAMES:
        for size in SIZES:
            number = 1 if name in DETERMINISTIC else DRAWS[name] * (1 if size == 224 else 2) if name in DRAWS else 2
            for severity in range(1, 6):
                rows.append(compare(reference, images[size], name, size, severity, number))
        print(name, "compared", flush=True)
    return rows


def speed(reference: Reference, name: str) -> dict[str, Any]:
    """Time one corruption at severities 1, 3 and 5: medians over rounds in turn."""
    with np.load(reference.images) as file:
        images = file["224"][:BATCH]
    ours, theirs = {}, {}
    for severity in (1, 3, 5):
        apply_ours(to_tensor(images), name, severity, 224, 0)
        command = {"images": reference.images, "name": name, "severity": severity}
        reference.ask("seconds", **command, count=1)
        own, other = [], []
        for round_ in range(ROUNDS):
            start = time.perf_counter()
            apply_ours(to_tensor(images), name, severity, 224, round_)
            own.append((time.perf_counter() - start) / len(images))
            other.append(reference.ask("seconds", **command, count=8 if name != "glass_blur" else 2))
        ours[severity], theirs[severity] = statistics.median(own), statistics.median(other)
    ratio = statistics.mean(theirs[severity] / ours[severity] for severity in ours)
    rates = {
        "ours": 1 / statistics.mean(ours.values()),
        "imagecorruptions": 1 / statistics.mean(theirs.values()),
    }
    print(name, f"{ratio:.1f} times as fast", flush=True)
    return {"name": name, "images_per_second": rates, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference-python", required=True, help="interpreter that has imagecorruptions")
    parser.add_argument("--images", help="folder of photographs, with any folders below")
    parser.add_argument("--only", choices=("agreement", "speed"), help="keep the stored results of the other")
    arguments = parser.parse_args()
    stored = HERE / "results.json"
    results: dict[str, Any] = json.loads(stored.read_text()) if arguments.only else {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        reference = Reference(arguments.reference_python, folder)
        count = reference.ask(
            "photographs", folder=arguments.images, count=36, sizes=list(SIZES), path=reference.images
        )
        if arguments.only != "agreement":
            results["speed"] = [speed(reference, name) for name in NAMES]
        if arguments.only != "speed":
            results["agreement"] = compare_all(reference)
        with np.load(reference.images) as file:
            draw_picture(to_tensor(file["224"][:1]), NAMES, HERE.parents[1] / "docs" / "corruptions.png")
        results |= {
            "images": {"source": "scikit-image" if arguments.images is None else "a folder", "count": count},
            "draws": DRAWS,
            "versions": {"torch": torch.__version__, "python": platform.python_version(), **reference.ask("versions")},
        }
    stored.write_text(json.dumps(results, indent=1) + "\n")
    write_tables(results, HERE / "results.md")


if __name__ == "__main__":
    main()
