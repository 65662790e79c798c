"""One cell, run in this process."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch

import tta.lightning_cli
from tta.errors import first_line
from tta.failures import what_failed
from tta.matrix.cells import Cell
from tta.matrix.results import Results
from tta.quiet import quiet
from tta.run_folder import told_to_children

LOG = "log.txt"


@dataclass(frozen=True)
class Work:
    """A cell with everything that a process elsewhere needs to run it.

    Attributes:
        cell: The cell.
        folder: The folder of results, absolute, on a file system that all processes see.
        home: The folder that configuration files and classes are looked for in.
        threads: Threads that PyTorch may use on the processor.
    """

    cell: Cell
    folder: str
    home: str
    threads: int


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    Attributes:
        name: The cell's name.
        error: Why it failed, in one line; empty where it finished.
    """

    name: str
    error: str = ""


def run_cell(work: Work) -> Outcome:
    """Run a cell unless it has finished already; what it says goes to ``log.txt`` in its folder.

    A cell is run by one process at a time: a second one waits, and finds it finished. Go on with what was killed.

    Args:
        work: The cell.

    Returns:
        How it ended; also in its ``status.json``.
    """
    cell, results = work.cell, Results(Path(work.folder))
    with results.locked(cell):
        if results.finished(cell):
            return Outcome(cell.name)
        words = results.begin(cell)
        with _home(work), _said_to(results.path(cell) / LOG):
            error = _run(cell.command, words)
        if error:
            results.write(cell, "failed", error)
        else:
            results.end(cell)
    return Outcome(cell.name, error)


def _run(command: str, words: list[str]) -> str:
    commands = {"fit": tta.lightning_cli.fit, "adapt": tta.lightning_cli.adapt}
    try:
        with quiet(), told_to_children(), _called_with([command, *words]):
            commands[command]([*words, "--trainer.enable_progress_bar", "false"])
    except Exception as error:  # noqa: BLE001  whatever one cell fails of, the others go on
        traceback.print_exc()
        return what_failed(error) or f"{type(error).__name__}: {first_line(error)}"
    return ""


@contextmanager
def _home(work: Work) -> Iterator[None]:
    before, threads = Path.cwd(), torch.get_num_threads()
    os.chdir(work.home)
    if work.home not in sys.path:
        sys.path.insert(0, work.home)  # configurations may name classes of the folder the command is given in
    torch.set_num_threads(work.threads)
    try:
        yield
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)


@contextmanager
def _called_with(words: list[str]) -> Iterator[None]:
    """Lightning starts further processes of a run with the command line that this one was started with."""
    program, before = str(Path(tta.lightning_cli.__file__).with_name("__main__.py")), sys.argv
    sys.argv = [program, *words]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _said_to(log: Path) -> Iterator[None]:
    """Whatever is written to standard output and error, also by libraries and loaders' workers, goes to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    try:
        with log.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
