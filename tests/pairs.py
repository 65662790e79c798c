"""Two processes that share a run, started as a launcher outside starts them."""

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.strategies import DDPStrategy


def free_port() -> int:
    """A port of this machine that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def by_lightning(rank: int, port: int) -> dict[str, str]:
    """The environment in which Lightning starts the processes of a run."""
    return {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _child(program: Callable[..., None], folder: Path, arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    sys.stderr = (folder / f"stderr-{os.getpid()}").open("w", buffering=1)
    torch.set_num_threads(1)
    program(folder, *arguments)


def fork(
    program: Callable[..., None],
    folder: Path,
    *arguments: Any,
    environment: Callable[[int, int], dict[str, str]] = by_lightning,
) -> tuple[int, str]:
    """Run ``program(folder, *arguments)`` in two processes that have everything imported.

    Returns:
        The worse of the two exit statuses, and the end of what both said.
    """
    folder.mkdir(exist_ok=True)
    port, context = free_port(), multiprocessing.get_context("fork")
    children = [
        context.Process(target=_child, args=(program, folder, arguments, environment(rank, port))) for rank in (0, 1)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=240)
        child.kill()
        child.join()
    said = "".join((folder / f"stderr-{child.pid}").read_text()[-2000:] for child in children)
    return max(abs(child.exitcode or 0) for child in children), said


def together(program: Callable[..., None], folder: Path) -> Path:
    """The folder in which two processes have run ``program(folder)`` to its end."""
    status, said = fork(program, folder)
    assert status == 0, said
    return folder


def one_after_the_other(folder: Path, runs: dict[str, Callable[[Path], None]]) -> None:
    """Several runs of one pair of processes; what stops one of them is left in ``NAME/error-RANK``."""
    for name, run in runs.items():
        (folder / name).mkdir(exist_ok=True)
        try:
            run(folder / name)
        except Exception:  # noqa: BLE001  whatever it is, the test that looks at the run tells of it
            (folder / name / f"error-{os.environ['LOCAL_RANK']}").write_text(traceback.format_exc())


def ddp() -> DDPStrategy:
    """Processes that do not wait for long for one that has stopped."""
    return DDPStrategy(timeout=timedelta(seconds=15))


def leave(folder: Path, final: dict[str, Any]) -> None:
    """Leave the outcome of a run of this process where :func:`outcomes` finds it."""
    torch.save(final, folder / f"rank-{os.environ['LOCAL_RANK']}.pt")


def outcomes(folder: Path) -> list[dict[str, Any]]:
    """What the two processes left; fails with the error of one that left that."""
    for error in folder.glob("error-*"):
        pytest.fail(error.read_text())
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]


def different(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> set[str]:
    """Names of tensors that are not equal bit for bit."""
    return {name for name in first if not torch.equal(first[name].nan_to_num(), second[name].nan_to_num())}
