"""The folder of results: what has run, and with what."""

import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tta.callbacks import last_checkpoint
from tta.errors import InputError, written
from tta.matrix.cells import RESULTS, Cell
from tta.report.render import write_atomically
from tta.run_folder import RECORDS
from tta.trainer import check_checkpoint

STATUS = "status.json"


@dataclass(frozen=True)
class Status:
    """Where a cell stands.

    Attributes:
        state: ``running`` (or killed together with the command), ``finished``, ``failed``, ``died`` if its process did,
            or ``not started`` if what it needs failed.
        fingerprint: Of the configuration that it was started with.
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

    def path(self, cell: Cell) -> Path:
        """The folder of a cell."""
        return self.folder / cell.name

    def words(self, cell: Cell) -> list[str]:
        """What a cell's command is called with."""
        words = [word.replace(RESULTS, str(self.folder)) for word in cell.words]
        return [*words, "--trainer.default_root_dir", str(self.path(cell))]

    def status(self, cell: Cell) -> Status | None:
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

    def finished(self, cell: Cell) -> bool:
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
        """Make a cell's folder ready: what an earlier attempt left is gone on with if it can be, and removed if not.

        Returns:
            What its command is called with.
        """
        folder, before = self.path(cell), self.status(cell)
        same = before is not None and before.fingerprint == cell.fingerprint
        goes_on = same and _can_go_on(folder, cell.command)
        if not goes_on:
            _clear(folder)
        self.write(cell, "running", started=True)
        words = self.words(cell)
        write_atomically(folder / "cell.json", json.dumps({"command": cell.command, "words": words}, indent=1) + "\n")
        return [*words, "--ckpt_path", "last"] if goes_on else words

    def end(self, cell: Cell) -> None:
        """Note that a cell has finished; its checkpoints, which are as large as its model, are of no more use."""
        self.write(cell, "finished")
        if cell.command == "adapt":
            shutil.rmtree(self.path(cell) / "checkpoints", ignore_errors=True)

    @contextmanager
    def locked(self, cell: Cell) -> Iterator[None]:
        """Within the context no other process runs the cell; waits for one that does."""
        folder = self.path(cell)
        with written(folder, "start again"):
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / ".lock").open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                raise InputError(
                    f"{folder} lies on a file system without locks ({error.strerror}): choose another --output"
                ) from error
            yield

    def check(self, cells: Iterable[Cell]) -> None:
        """Make sure that what lies in the folder is of this matrix.

        Raises:
            InputError: If a cell was run with another configuration, or nothing in the folder is of this matrix.
        """
        if not self.check_configuration(cells) and self._holds_something():
            raise InputError(f"{self.folder} holds something else, or another matrix' results: choose another --output")

    def _holds_something(self) -> bool:
        if not self.folder.is_dir():
            return False
        return any(path.name not in ("cells", "sources") for path in self.folder.iterdir()) or any(
            self.folder.rglob(STATUS)
        )

    def check_configuration(self, cells: Iterable[Cell]) -> int:
        """Make sure that cells that were started had the configuration that they have now; those that failed may not.

        Returns:
            How many were started, or would have been.

        Raises:
            InputError: If one had another.
        """
        started = [(cell, status) for cell in cells if (status := self.status(cell)) is not None]
        for cell, status in started:
            if status.fingerprint != cell.fingerprint and status.state not in ("failed", "not started"):
                raise InputError(
                    f"{self.path(cell)} was run with another configuration: choose another --output, or take it away"
                )
        return len(started)


def _can_go_on(folder: Path, command: str) -> bool:
    checkpoint = last_checkpoint(folder)
    if not checkpoint.exists():
        return command == "adapt" and (folder / "metrics.csv").exists()
    try:
        check_checkpoint(checkpoint)
    except InputError:
        return False
    return True


def _clear(folder: Path) -> None:
    for name in (*RECORDS, "timing.csv", "summary.json", "report.html", "weights.safetensors"):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
