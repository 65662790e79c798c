"""Cells in processes of this machine."""

import multiprocessing
import os
import threading
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from signal import Signals
from typing import cast

import torch

from tta.errors import InputError
from tta.matrix.results import Results
from tta.matrix.work import Outcome, Work, run_cell


@dataclass(frozen=True)
class _Running:
    slot: int
    process: BaseProcess
    work: Work
    attempts: int


class LocalEngine:
    """A process for each cell, forked from one that has everything imported: a cell that crashes takes none along.

    Where there are GPUs, the processes share them evenly.

    Args:
        jobs: Cells at a time.

    Raises:
        InputError: If ``jobs`` is not positive.
    """

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise InputError(f"--jobs {jobs}: need at least 1")
        self.slots = jobs
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tta.matrix.work", "tta.modules", "torchvision"])
        self._running: dict[int, _Running] = {}

    def start(self, work: Work) -> None:
        """Start a cell."""
        slot = min(set(range(self.slots)) - {running.slot for running in self._running.values()})
        process = self._context.Process(target=_child, args=(work, _gpu(slot)), daemon=False)
        attempts = _attempts(work)
        process.start()
        self._running[process.sentinel] = _Running(slot, process, work, attempts)

    def ended(self) -> list[Outcome]:
        """Wait for a process to end."""
        outcomes = []
        for sentinel in wait(list(self._running)):
            running = self._running.pop(cast(int, sentinel))
            running.process.join()
            outcomes.append(_outcome(running))
        return outcomes

    def close(self) -> None:
        """Stop processes that still run."""
        processes = [running.process for running in self._running.values()]
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(timeout=5)
            process.kill()
            process.join()
        self._running.clear()


def default_jobs() -> int:
    """One cell for each GPU, or else for each processor that this process may use."""
    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def threads_for(jobs: int) -> int:
    """Threads that each of so many cells may use of those that PyTorch would."""
    return max(1, torch.get_num_threads() // jobs)


def _gpu(slot: int) -> str | None:
    count = torch.cuda.device_count()
    if not count:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    return names[slot % count]


def _child(work: Work, gpu: str | None) -> None:
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    run_cell(work)


def _die_with_the_parent() -> None:
    """A cell must not outlive a killed command: the next one would find it running."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _attempts(work: Work) -> int:
    status = Results(Path(work.folder)).status(work.cell)
    return 0 if status is None else status.attempts


def _outcome(running: _Running) -> Outcome:
    work, results = running.work, Results(Path(running.work.folder))
    status = results.status(work.cell)
    if status is not None and status.attempts > running.attempts and status.state != "running":
        return Outcome(work.cell.name, status.error)
    if results.finished(work.cell):  # by another command, while this one waited
        return Outcome(work.cell.name)
    code = running.process.exitcode or 0
    how = f"killed by {Signals(-code).name}" if code < 0 else f"exit status {code}"
    error = f"its process died ({how}): if memory ran out, use fewer --jobs"
    results.write(work.cell, "died", error)
    return Outcome(work.cell.name, error)
