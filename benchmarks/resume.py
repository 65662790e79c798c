"""Kill ``tta adapt`` at random moments, resume it, and compare with an uninterrupted run, bit for bit.

    python benchmarks/resume.py --trials 20

Runs on digits with a small BatchNorm ResNet (``--adapter`` chooses the method). Each trial sends SIGKILL at a random
batch, starts the same command with ``--ckpt_path last``, and compares predictions, metrics, summary (without the
clock's part) and the final checkpoint.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch


def command(folder: Path, adapter: str, seed: int) -> list[str]:
    return [
        *(sys.executable, "-m", "tta", "adapt", "--seed_everything", str(seed)),
        *("--config", "configs/data/digits.yaml", "--config", "configs/model/digits_resnet.yaml"),
        *("--config", f"configs/adapter/{adapter}.yaml", "--model.optimizer.lr", "0.01"),
        *("--data.batch_size", "16", "--data.samples_per_domain", "100"),
        *("--trainer.callbacks+=tta.callbacks.BatchCheckpoint", "--trainer.callbacks.every_n_batches", "7"),
        *("--trainer.default_root_dir", str(folder), "--trainer.enable_progress_bar", "false"),
    ]


def run(words: list[str], kill_after: int | None = None) -> None:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    folder = Path(words[words.index("--trainer.default_root_dir") + 1])
    while kill_after is not None and process.poll() is None:
        if rows(folder) > kill_after:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    _, errors = process.communicate()
    if kill_after is None and process.returncode != 0:
        raise RuntimeError(errors.decode())


def rows(folder: Path) -> int:
    file = folder / "metrics.csv"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def differences(first: Any, second: Any, place: str = "") -> list[str]:
    if isinstance(first, torch.Tensor):
        same = first.shape == second.shape and torch.equal(first.nan_to_num(), second.nan_to_num())
        return [] if same else [place]
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [f"{place}: other keys"]
        return [d for key in first for d in differences(first[key], second[key], f"{place}.{key}")]
    if isinstance(first, list | tuple):
        pairs = zip(first, second, strict=True)
        return [d for position, pair in enumerate(pairs) for d in differences(*pair, f"{place}.{position}")]
    return [] if first == second or first != first else [f"{place}: {first!r} against {second!r}"]


def state(folder: Path) -> dict[str, Any]:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    summary = json.loads((folder / "summary.json").read_text())
    for clock in ("seconds", "samples_per_second", "peak_memory_mb"):
        del summary["cost"][clock]
    return {
        "model": checkpoint["state_dict"],
        "optimizer": checkpoint["optimizer_states"],
        "host": checkpoint["online_adaptation"],
        "summary": summary,
        "metrics": (folder / "metrics.csv").read_text(),
        "predictions": (folder / "predictions.csv").read_text(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--adapter", default="sar")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    equal = 0
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        run(command(whole, options.adapter, options.seed))
        expected, batches = state(whole), rows(whole) - 1
        for trial in range(options.trials):
            folder = Path(scratch) / f"killed-{trial}"
            words = command(folder, options.adapter, options.seed)
            moment = draw.randrange(1, batches - 1)
            run(words, kill_after=moment)
            killed_at = rows(folder) - 1
            run([*words, "--ckpt_path", "last"])
            found = differences(expected, state(folder))
            equal += not found
            print(f"trial {trial}: killed after batch {killed_at} of {batches}: {found or 'equal'}", flush=True)
    print(f"{options.adapter}: {equal} of {options.trials} equal")
    return 0 if equal == options.trials else 1


if __name__ == "__main__":
    sys.exit(main())
