"""Two processes share a stream."""

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


class Dump(Callback):
    def on_train_end(self, trainer, pl_module):
        state = {**pl_module.backbone.state_dict(), **pl_module.adapter.state_dict()}
        seen = torch.tensor([pl_module.monitor.count(name) for name in ("samples", "flagged", "resets")])
        torch.save({**state, "seen": seen}, f"{trainer.default_root_dir}/rank-{trainer.global_rank}.pt")


if __name__ == "__main__":
    seed_everything(0)
    host = OnlineAdaptation(
        TimmClassifier("test_resnet", num_classes=10),
        ADAPTERS[sys.argv[1]](),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        num_classes=10,
    )
    trainer = StreamTrainer(
        default_root_dir=sys.argv[2], accelerator="cpu", devices=2, strategy="ddp", callbacks=[Spoil(), Dump()],
        enable_progress_bar=False, enable_model_summary=False, logger=False,
    )
    trainer.adapt(host, DigitsStream(batch_size=8, samples_per_domain=31, domains=["clean", "contrast"]))
"""


@pytest.mark.ddp
@pytest.mark.parametrize("adapter", ["tent", "eata", "sar", "sar that resets"])
def test_two_processes_end_with_equal_parameters(adapter: str, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    words = [sys.executable, "-W", "ignore", str(script), adapter, str(tmp_path)]
    path = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    different = [name for name in first if not torch.equal(first[name].nan_to_num(), second[name].nan_to_num())]
    assert different == []
    samples, flagged, resets = first["seen"].tolist()
    assert samples == 62, "every sample once"
    assert flagged in (7, 8)
    assert (resets > 0) == (adapter == "sar that resets")
    rows = (tmp_path / "predictions.csv").read_text().splitlines()[1:]
    keys = {tuple(row.split(",")[1:3]) for row in rows}
    assert len(rows) == len(keys) == 62
