"""Cells on a Ray cluster."""

import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tta.errors import InputError, first_line, written
from tta.failures import what_failed
from tta.matrix.ray_cluster import check_room, connected
from tta.matrix.results import Results
from tta.matrix.work import Outcome, Work, run_cell

if TYPE_CHECKING:
    from ray import ObjectRef

QUEUE = 1000
"""Cells that wait at the cluster at a time, where ``jobs`` does not say."""


class RayEngine:
    """A task for each cell, in a process of its own; one whose node is lost is run again on another.

    A task goes on where the last checkpoint of the lost one left it. All nodes must see the folder of results, and the
    folder that the command is given in, at the same path.

    Args:
        address: ``HOST:PORT`` of a cluster that this machine is a node of, or ``auto`` for the one that it is a node
            of; ``None`` starts one here, for as long as the engine lives.
        cpus: Processors that a cell takes up.
        gpus: GPUs that a cell takes up: a whole number, or a part of one.
        retries: How often a cell is run again after its process or node died.
        jobs: Cells at a time; ``None`` for as many as the cluster has room for.

    Raises:
        InputError: If Ray is not installed, a number is out of range, the cluster cannot be reached, or no node of it
            has room for a cell.
    """

    def __init__(self, address: str | None, cpus: int, gpus: float, retries: int, jobs: int | None) -> None:
        _check_numbers(cpus, gpus, retries, jobs)
        self.slots = QUEUE if jobs is None else jobs
        with ExitStack() as opened:
            self._ray = opened.enter_context(connected(address))
            check_room(self._ray, cpus, gpus)
            self._opened = opened.pop_all()
        task = self._ray.remote(max_calls=1)(_run_on_node)
        self._task = task.options(num_cpus=cpus, num_gpus=gpus, max_retries=retries, retry_exceptions=False)
        self._gpus = gpus
        self._running: dict[ObjectRef[Outcome], Work] = {}

    def start(self, work: Work) -> None:
        """Hand a cell to the cluster.

        Raises:
            InputError: If its folder cannot be made.
        """
        folder = Results(Path(work.folder)).path(work.cell)
        with written(folder, "start again"):
            folder.mkdir(parents=True, exist_ok=True)  # a node that does not see it sees another folder of results
        self._running[self._task.remote(work, self._gpus)] = work

    def ended(self) -> list[Outcome]:
        """Wait for a cell to end."""
        self._ray.wait(list(self._running), num_returns=1)
        ended, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._outcome(reference, self._running.pop(reference)) for reference in ended]

    def close(self) -> None:
        """Stop cells that still run, and the cluster if it was started here."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        self._opened.close()

    def _outcome(self, reference: "ObjectRef[Outcome]", work: Work) -> Outcome:
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            state, reason = "failed", _said_by_a_task(error)
        except self._ray.exceptions.RayError as error:
            state, reason = "died", _how_it_died(error)
        else:
            return outcome
        results = Results(Path(work.folder))
        if results.finished(work.cell):  # and then died
            return Outcome(work.cell.name)
        results.write(work.cell, state, reason)
        return Outcome(work.cell.name, reason)


def _run_on_node(work: Work, gpus: float) -> Outcome:
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray shows a task that asked for none all GPUs of its node
    for folder in (Results(Path(work.folder)).path(work.cell), Path(work.home)):
        if not folder.is_dir():
            raise InputError(
                f"{socket.gethostname()} sees no {folder}: results, and the folder the command is given in, have to be "
                "at the same path on all nodes"
            )
    return run_cell(work)


def _check_numbers(cpus: int, gpus: float, retries: int, jobs: int | None) -> None:
    if cpus < 1:
        raise InputError(f"--cpus-per-cell {cpus}: need at least 1")
    if not 0 <= gpus < float("inf") or (gpus > 1 and gpus != int(gpus)):
        raise InputError(f"--gpus-per-cell {gpus:g}: need a part of one GPU, such as 0.5, or a whole number of them")
    if retries < 0:
        raise InputError(f"--retries {retries}: need 0 or more")
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs {jobs}: need at least 1")


def _said_by_a_task(error: Exception) -> str:
    cause = getattr(error, "cause", error)
    return what_failed(cause) or f"{type(cause).__name__}: {_last_line(cause)}"


def _how_it_died(error: Exception) -> str:
    return f"its process or node died more often than --retries allows ({type(error).__name__}: {first_line(error)})"


def _last_line(error: BaseException) -> str:
    return str(error).strip().rpartition("\n")[2]
