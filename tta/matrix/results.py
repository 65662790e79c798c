"""The folder of results: what has run, and with what."""

import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tta.errors import InputError, written
from tta.matrix.cells import RESULTS, Cell
from tta.report.render import write_atomically
from tta.run_folder import RECORDS

STATUS = "status.json"


@dataclass(frozen=True)
class Status:
    """Where a cell stands.

    Attributes:
        state: ``running`` (or killed together with the command), ``finished``, ``failed``, or ``died`` if its process
            did; all but ``failed`` are gone on with where they stood.
        fingerprint: Of the configuration that it runs with.
        attempts: How often it was started.
        error: Why it failed, in one line.
    """

    state: str
    fingerprint: str
    attempts: int
    error: str = ""


class Results:
    """A folder with a folder for each cell.

    Args:
        folder: The folder, made when the first cell runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, cell: Cell | str) -> Path:
        """The folder of a cell."""
        return self.folder / (cell if isinstance(cell, str) else cell.name)

    def words(self, cell: Cell) -> list[str]:
        """What a cell's command is called with."""
        words = [word.replace(RESULTS, str(self.folder)) for word in cell.words]
        return [*words, "--trainer.default_root_dir", str(self.path(cell))]

    def status(self, cell: Cell | str) -> Status | None:
        """Where a cell stands, ``None`` if it was never started.

        Raises:
            InputError: If its file cannot be read.
        """
        file = self.path(cell) / STATUS
        try:
            return Status(**json.loads(file.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{file} cannot be read ({error}): take its folder away to run that cell again") from error

    def finished(self, cell: Cell | str) -> bool:
        """Whether a cell needs no further run."""
        status = self.status(cell)
        return status is not None and status.state == "finished"

    def write(self, cell: Cell, state: str, error: str = "", started: bool = False) -> None:
        """Note where a cell stands; ``started`` counts an attempt."""
        before = self.status(cell)
        attempts = (0 if before is None else before.attempts) + started
        status = Status(state, cell.fingerprint, attempts, error)
        write_atomically(self.path(cell) / STATUS, json.dumps(asdict(status), indent=1) + "\n")

    def begin(self, cell: Cell) -> list[str]:
        """Make a cell's folder ready: what a killed run left is gone on with, what a failed one left is removed.

        Returns:
            What its command is called with.
        """
        folder, status = self.path(cell), self.status(cell)
        if status is not None and status.state == "failed":
            _clear(folder)
        self.write(cell, "running", started=True)
        words = self.words(cell)
        write_atomically(folder / "cell.json", json.dumps({"command": cell.command, "words": words}, indent=1) + "\n")
        if _can_go_on(folder, cell.command):
            return [*words, "--ckpt_path", "last"]
        _clear(folder)
        return words

    def end(self, cell: Cell) -> None:
        """Note that a cell has finished; its checkpoints, which are as large as its model, are of no more use."""
        if cell.command == "adapt":
            shutil.rmtree(self.path(cell) / "checkpoints", ignore_errors=True)
        self.write(cell, "finished")

    @contextmanager
    def locked(self, cell: Cell) -> Iterator[None]:
        """Within the context no other process runs the cell; waits for one that does."""
        folder = self.path(cell)
        with written(folder, "start again"):
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / ".lock").open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def check(self, cells: Iterable[Cell]) -> None:
        """Make sure that what lies in the folder is of this matrix.

        Raises:
            InputError: If a cell was run with another configuration, or nothing in the folder is of this matrix.
        """
        if not self.check_configuration(cells) and self.folder.is_dir() and any(self.folder.iterdir()):
            raise InputError(f"{self.folder} holds something else, or another matrix' results: choose another --output")

    def check_configuration(self, cells: Iterable[Cell]) -> int:
        """Make sure that cells that were started had the configuration that they have now.

        Returns:
            How many were started.

        Raises:
            InputError: If one had another.
        """
        started = [(cell, status) for cell in cells if (status := self.status(cell)) is not None]
        for cell, status in started:
            if status.fingerprint != cell.fingerprint:
                raise InputError(
                    f"{self.path(cell)} was run with another configuration: choose another --output, or take it away"
                )
        return len(started)


def _can_go_on(folder: Path, command: str) -> bool:
    checkpoint = (folder / "checkpoints" / "last.ckpt").exists()
    return checkpoint or (command == "adapt" and (folder / "metrics.csv").exists())


def _clear(folder: Path) -> None:
    for name in (*RECORDS, "timing.csv", "summary.json", "report.html", "weights.safetensors"):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
