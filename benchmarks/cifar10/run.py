"""Adapt CIFAR-10 ResNet-20s to their test images as JPEG files, clean and under four corruptions at severity 5.

    python benchmarks/cifar10/run.py --root data/cifar10/test --source-root data/cifar10/train \\
        --batch-norm data/resnet20_cifar10.safetensors --group-norm data/resnet20_gn8_cifar10jpeg.safetensors

Every cell is an ordinary ``tta adapt`` call (printed), reset to the source at each domain. Learning rates are those
published for CIFAR at this batch size (200). Writes ``results.json`` and ``results.md`` beside this file.
"""

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from tta.cli import main as tta_main

HERE = Path(__file__).parent
DOMAINS = ["clean", "gaussian_noise", "gaussian_blur", "contrast", "jpeg"]
ADAM = ["--model.optimizer", "torch.optim.Adam", "--model.optimizer.lr", "0.001"]
ADAPTERS: dict[str, list[str]] = {
    "source": [],
    "bnstats": [],
    "tent": ADAM,
    "eata": [*ADAM, "--model.adapter.redundancy", "0.4", "--model.adapter.fisher_alpha", "1"],
    "sar": ["--model.optimizer.lr", "0.001"],
}
NETWORKS = {"BatchNorm": "cifar10_resnet20", "GroupNorm": "cifar10_resnet20_gn"}


def words(network: str, adapter: str, weights: str, options: argparse.Namespace) -> list[str]:
    return [
        *(
            "adapt",
            "--config",
            "configs/data/cifar10_folder.yaml",
            "--config",
            f"configs/model/{NETWORKS[network]}.yaml",
        ),
        *("--config", f"configs/adapter/{adapter}.yaml", *ADAPTERS[adapter]),
        *("--data.root", options.root, "--data.source_root", options.source_root, "--data.num_workers", "0"),
        *("--data.domains", f"[{', '.join(DOMAINS)}]", "--data.batch_size", "200"),
        *("--data.samples_per_domain", str(options.samples), "--data.source_samples", "2000"),
        *("--model.weights", weights, "--model.protocol", "per_domain"),
        *("--trainer.enable_progress_bar", "false", "--trainer.limit_val_batches", "0"),
    ]


def run(arguments: list[str], folder: Path) -> dict[str, Any]:
    print("tta", shlex.join(arguments), flush=True)
    status = tta_main([*arguments, "--trainer.default_root_dir", str(folder)])
    if status:
        raise SystemExit(status)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def table(results: dict[str, dict[str, Any]]) -> str:
    names = list(next(iter(results.values()))["per_domain"])
    lines = [f"| network, adapter | {' | '.join(names)} | mean | ECE | collapsed | resets | forwards + backwards |"]
    lines.append("|" + "---|" * (len(names) + 6))
    for key, summary in results.items():
        accuracies = [100 * row["accuracy"] for row in summary["per_domain"].values()]
        cells = [f"{value:.1f}" for value in (*accuracies, sum(accuracies) / len(accuracies))]
        collapse = summary["collapse"]["collapsed_at"]
        cost = summary["cost"]
        passes = f"{cost['forwards_per_sample']:.0f} + {cost['backwards_per_sample']:.0f}"
        cells += [
            f"{summary['ece']:.3f}",
            "no" if collapse is None else f"at {collapse}",
            str(summary["resets"]),
            passes,
        ]
        lines.append(f"| {key} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of test images, CLASS/*.jpg")
    parser.add_argument("--source-root", required=True, help="folder of training images, CLASS/*.jpg")
    parser.add_argument("--batch-norm", required=True, help="weights of the BatchNorm ResNet-20")
    parser.add_argument("--group-norm", required=True, help="weights of the GroupNorm ResNet-20")
    parser.add_argument("--samples", type=int, default=10000, help="images per domain")
    options = parser.parse_args()
    weights = {"BatchNorm": options.batch_norm, "GroupNorm": options.group_norm}
    results: dict[str, dict[str, Any]] = {}
    commands = []
    with tempfile.TemporaryDirectory() as scratch:
        for network in NETWORKS:
            for adapter in ADAPTERS:
                if network == "GroupNorm" and adapter == "bnstats":
                    continue
                arguments = words(network, adapter, weights[network], options)
                commands.append("tta " + shlex.join(arguments))
                results[f"{network}, {adapter}"] = run(arguments, Path(scratch) / f"{network}-{adapter}")
    (HERE / "results.json").write_text(json.dumps({"commands": commands, "results": results}, indent=1) + "\n")
    (HERE / "results.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    sys.exit(main())
