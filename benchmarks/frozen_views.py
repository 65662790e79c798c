"""What averaging over views gives a frozen model, by the number and the kind of views.

    python -m benchmarks.frozen_views        # writes frozen_views.json beside this file, prints the table of the docs

Two networks with BatchNorm, neither adapted: the digits network of ``make demo`` (trained first, 20 epochs) on its
twelve corruptions, and a ResNet-20 on five corruptions of CIFAR-10 test images as JPEG files, all at severity 5. Each
``tta.adapters.FrozenViews`` sees the same images. Points over one view come with the standard error of the mean of the
paired differences, over images.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tta
from datamodules import DigitsStream, ImageFolderStream
from models import CifarResNet, TimmClassifier
from tta.adapters.views import MovedOverEdges, ROIDViews, Transform
from tta.cli import main as call
from tta.modules import load_weights

COUNTS = (1, 2, 4, 6, 8)
VIEWS: dict[str, Transform | None] = {
    "default": None,
    "shifts": MovedOverEdges(0.0, 1 / 32, (1.0, 1.0), blur=None),
    "wide": MovedOverEdges(15.0, 1 / 16, (0.9, 1.1), blur=None),
    "ROID": ROIDViews(),
}
CORRUPTIONS = ("gaussian_noise", "defocus_blur", "frost", "contrast", "pixelate")
RESULTS = Path(__file__).with_suffix(".json")
Samples = tuple[nn.Module, Tensor, Tensor]


def all_of(data: DigitsStream | ImageFolderStream) -> tuple[Tensor, Tensor]:
    data.setup("fit")
    batches = list(data.train_dataloader())
    return torch.cat([batch["image"] for batch in batches]), torch.cat([batch["label"] for batch in batches])


def digits(options: argparse.Namespace) -> Samples:
    weights = options.runs / "source" / "weights.safetensors"
    if not weights.exists():
        words = ("fit", "--config", "configs/data/digits_source.yaml", "--config", "configs/model/digits_resnet.yaml")
        quiet = ("--trainer.max_epochs", "20", "--trainer.enable_progress_bar", "false")
        if status := call([*words, *quiet, "--trainer.default_root_dir", str(weights.parent)]):
            raise SystemExit(status)
    model = TimmClassifier("test_resnet", num_classes=10)
    load_weights(model, weights)
    return model, *all_of(DigitsStream(severity=5, samples_per_domain=options.samples // 2, seed=0))


def cifar10(options: argparse.Namespace) -> Samples:
    model = CifarResNet()
    load_weights(model, options.data / "resnet20_cifar10.safetensors")
    root = str(options.data / "cifar10/test")
    stream = ImageFolderStream(root, domains=list(CORRUPTIONS), samples_per_domain=options.samples, severity=5, seed=0)
    return model, *all_of(stream)


def correct(samples: Samples, views: Transform | None) -> Tensor:
    """Which samples are right after each number of views, shape ``(most, N)``: fewer views are the first of more."""
    model, images, labels = samples
    online = tta.online(model, "frozenviews", count=COUNTS[-1], views=views)
    passes: list[Tensor] = []
    hook = model.register_forward_hook(lambda module, inputs, logits: passes.append(logits.log_softmax(dim=1)))
    right = []
    for x, y in zip(images.split(64), labels.split(64), strict=True):
        passes.clear()
        logits = online(x)
        means = torch.stack(passes).logcumsumexp(dim=0)
        torch.testing.assert_close(means[-1] - math.log(COUNTS[-1]), logits)
        right.append(means.argmax(dim=2) == y)
    hook.remove()
    return torch.cat(right, dim=1).double()


def measured(name: str, samples: Samples) -> Iterator[dict[str, Any]]:
    for kind, views in VIEWS.items():
        right = correct(samples, views)
        for count in COUNTS:
            gain = right[count - 1] - right[0]
            row = {"stream": name, "samples": len(gain), "views": kind, "count": count}
            row |= {"accuracy": float(right[count - 1].mean()), "gain": float(gain.mean())}
            yield row | {"standard_error": float(gain.std()) / math.sqrt(len(gain))}
            print(row, flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| stream | views | " + " | ".join(map(str, COUNTS)) + " |", "|---" * (2 + len(COUNTS)) + "|"]
    for stream, kind in dict.fromkeys((row["stream"], row["views"]) for row in rows):
        cells = [_cell(row) for row in rows if (row["stream"], row["views"]) == (stream, kind)]
        lines.append(f"| {stream} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    accuracy, gain, error = (100 * row[name] for name in ("accuracy", "gain", "standard_error"))
    return f"{accuracy:.1f}" if row["count"] == 1 else f"{accuracy:.1f} ({gain:+.1f} ± {error:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of CIFAR-10 and the networks' weights")
    parser.add_argument("--runs", type=Path, default=Path("runs/frozen_views"), help="folder of the digits network")
    parser.add_argument("--samples", type=int, default=320, help="CIFAR-10 images per corruption; of digits half")
    options = parser.parse_args()
    rows = [row for make in (digits, cifar10) for row in measured(make.__name__, make(options))]
    RESULTS.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    sys.exit(main())
