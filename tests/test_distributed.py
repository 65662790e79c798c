"""Two processes share a stream."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent

SCRIPT = """
import sys
import torch
from pytorch_lightning import Callback, seed_everything
from datamodules import DigitsStream
from models import TimmClassifier
from tta.adapters import EATA, SAR, Tent
from tta.callbacks import BatchCheckpoint, Recorder
from tta.modules import OnlineAdaptation
from tta.trainer import StreamTrainer

torch.set_num_threads(1)
ADAPTERS = {
    "tent": Tent,
    "eata": lambda: EATA(margin=0.97, redundancy=0.9, fisher_alpha=1.0),
    "sar": lambda: SAR(margin=0.97, reset_threshold=0.0),
    "sar that resets": lambda: SAR(margin=0.999, reset_threshold=2.25),
}


class Spoil(Callback):
    # One process meets a batch without a finite sample, the other does not.
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1 and trainer.global_rank == 1:
            batch["image"].fill_(torch.nan)


class Crash(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 3:
            raise InterruptedError


class Dump(Callback):
    def on_train_end(self, trainer, pl_module):
        state = {**pl_module.backbone.state_dict(), **pl_module.adapter.state_dict()}
        seen = torch.tensor([pl_module.monitor.count(name) for name in ("samples", "flagged", "resets", "correct")])
        torch.save({**state, "seen": seen}, f"{trainer.default_root_dir}/rank-{trainer.global_rank}.pt")


if __name__ == "__main__":
    seed_everything(0)
    host = OnlineAdaptation(
        TimmClassifier("test_resnet", num_classes=10),
        ADAPTERS[sys.argv[1]](),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        num_classes=10,
    )
    mode = sys.argv[3]
    callbacks = [Spoil(), Dump(), Recorder(), BatchCheckpoint(2)] + ([Crash()] if mode == "crash" else [])
    trainer = StreamTrainer(
        default_root_dir=sys.argv[2], accelerator="cpu", devices=2, strategy="ddp", callbacks=callbacks,
        enable_progress_bar=False, enable_model_summary=False, logger=False,
    )
    stream = DigitsStream(batch_size=8, samples_per_domain=47, domains=["clean", "contrast"])
    trainer.adapt(host, stream, ckpt_path="last" if mode == "resume" else None)
"""


def run(adapter: str, folder: Path, mode: str = "whole") -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    script = folder / "run.py"
    script.write_text(SCRIPT)
    words = [sys.executable, "-W", "ignore", str(script), adapter, str(folder), mode]
    path = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, env=path, capture_output=True, text=True, timeout=240, check=False)


def ranks(folder: Path) -> list[dict[str, torch.Tensor]]:
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]


def different(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in first if not torch.equal(first[name].nan_to_num(), second[name].nan_to_num())]


@pytest.mark.ddp
@pytest.mark.parametrize("adapter", ["tent", "eata", "sar", "sar that resets"])
def test_two_processes_end_with_equal_parameters(adapter: str, tmp_path: Path) -> None:
    done = run(adapter, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = ranks(tmp_path)
    assert different(first, second) == []
    samples, flagged, resets, correct = first["seen"].tolist()
    assert samples == 94, "every sample once"
    assert flagged == 8
    last = list(csv.DictReader((tmp_path / "metrics.csv").open()))[-1]
    assert resets == int(last["resets"]), "processes reset together: counted once"
    assert (resets > 0) == (adapter == "sar that resets")
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert len({(row["index"], row["domain"]) for row in rows}) == len(rows) == 94
    assert correct == sum(row["label"] == row["prediction"] for row in rows)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["cost"]["forwards_per_sample"] >= (1.0 if adapter != "sar" else 1.5)


@pytest.mark.ddp
def test_a_run_of_two_processes_resumes(tmp_path: Path) -> None:
    assert run("sar", tmp_path / "whole").returncode == 0
    assert run("sar", tmp_path / "cut", "crash").returncode != 0
    done = run("sar", tmp_path / "cut", "resume")
    assert done.returncode == 0, done.stderr[-2000:]
    for whole, cut in zip(ranks(tmp_path / "whole"), ranks(tmp_path / "cut"), strict=True):
        assert different(whole, cut) == []
    for name in ("metrics.csv", "predictions.csv"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "cut" / name).read_text()
