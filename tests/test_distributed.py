"""Two processes share a stream."""

import csv
import json
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.two_processes import adapt, network

ROOT = Path(__file__).parent.parent


def start(adapter: str, folder: Path) -> tuple[int, str]:
    """Run as a user does: one process, which starts the other. Its status, and the end of what it said."""
    words = [sys.executable, "-W", "ignore", "-m", "tests.two_processes", adapter, str(folder), "whole"]
    path = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=path, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stderr[-2000:]


def _child(rank: int, port: int, adapter: str, folder: Path, mode: str) -> None:
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    sys.stderr = (folder / f"stderr-{rank}").open("w", buffering=1)
    adapt(adapter, folder, mode)


def fork(adapter: str, folder: Path, mode: str = "whole") -> tuple[int, str]:
    """Run in two processes that have everything imported, as a launcher outside starts them."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_child, args=(rank, port, adapter, folder, mode)) for rank in (0, 1)]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=240)
        child.kill()
        child.join()
    said = "".join((folder / f"stderr-{rank}").read_text()[-2000:] for rank in (0, 1))
    return max(abs(child.exitcode or 0) for child in children), said


def ranks(folder: Path) -> list[dict[str, torch.Tensor]]:
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]


def different(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in first if not torch.equal(first[name].nan_to_num(), second[name].nan_to_num())]


@pytest.mark.ddp
@pytest.mark.parametrize("adapter", ["tent", "eata", "sar", "sar that resets", "sar of a transformer"])
def test_two_processes_end_with_equal_parameters(adapter: str, tmp_path: Path) -> None:
    status, said = start(adapter, tmp_path) if adapter == "tent" else fork(adapter, tmp_path)
    assert status == 0, said
    first, second = ranks(tmp_path)
    assert different(first, second) == []
    source = network(adapter).state_dict()
    moved = any(not torch.equal(first[name], value) for name, value in source.items())
    assert moved or adapter == "sar that resets"
    samples, flagged, resets, correct = first["seen"].tolist()
    assert samples == 94, "every sample once"
    assert flagged == 8
    last = list(csv.DictReader((tmp_path / "metrics.csv").open()))[-1]
    assert resets == int(last["resets"]), "processes reset together: counted once"
    assert (resets > 0) == (adapter == "sar that resets")
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert len({(row["index"], row["domain"]) for row in rows}) == len(rows) == 94
    assert correct == sum(row["label"] == row["prediction"] for row in rows)
    cost = json.loads((tmp_path / "summary.json").read_text())["cost"]
    assert cost["forwards_per_sample"] >= (1.5 if adapter == "sar" else 1.0)
    if adapter == "sar of a transformer":
        assert 0.1 < cost["backwards_per_sample"] < 1.5, "of two, and of samples that teach alone"


@pytest.mark.ddp
@pytest.mark.parametrize("adapter", ["sar", "sar of a transformer"])
def test_a_run_of_two_processes_resumes(adapter: str, tmp_path: Path) -> None:
    assert fork(adapter, tmp_path / "whole")[0] == 0
    status, said = fork(adapter, tmp_path / "cut", "crash")
    assert status != 0
    assert "InterruptedError" in said
    assert (tmp_path / "cut" / "checkpoints" / "last.ckpt").exists()
    status, said = fork(adapter, tmp_path / "cut", "resume")
    assert status == 0, said
    for whole, cut in zip(ranks(tmp_path / "whole"), ranks(tmp_path / "cut"), strict=True):
        assert different(whole, cut) == []
    for name in ("metrics.csv", "predictions.csv"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "cut" / name).read_text()
