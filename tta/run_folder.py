"""Where a run writes, so that no run overwrites another."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tta.errors import InputError

VARIABLE = "TTA_RUN_FOLDER"
"""Tells the other processes of a run, which Lightning starts with the same command line, what the first one chose."""


@contextmanager
def told_to_children() -> Iterator[None]:
    """Within the context the choice is in the environment; afterwards the environment is as before."""
    before = os.environ.get(VARIABLE)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


NUMBERS = ("RANK", "NODE_RANK", "LOCAL_RANK", "SLURM_PROCID")
"""By some of which torchrun, Lightning and srun number the processes of a run; the first has no other number than 0."""

RECORDS = ("metrics.csv", "checkpoints", "predictions.csv", "test.json")
"""Any of these in a folder means that a run lies there."""


def choose_run_folder(given: str | None, stem: str, resumed: str | None) -> str:
    """The folder of the run that is about to start, or of the one that goes on.

    Args:
        given: Folder that the user named, if any.
        stem: Name under ``runs/`` otherwise; a number is added where it is taken.
        resumed: ``last`` or the checkpoint file of the run that goes on, ``None`` for a new run.

    Returns:
        Path of the folder.

    Raises:
        InputError: If a new run is to go where one lies, if ``last`` has nothing to go on with, or if the processes
            of a run, started from outside, have no folder named for all of them.
    """
    first = not any(_number(name) for name in NUMBERS)
    if not first and VARIABLE in os.environ:
        return os.environ[VARIABLE]
    launched = "TORCHELASTIC_RUN_ID" in os.environ or _number("SLURM_NTASKS") > 1
    if given is None and (launched or not first):
        raise InputError("processes that a launcher starts need one folder for all: give --trainer.default_root_dir")
    if not first:
        return str(given)
    folder = str(_new_folder(given, stem) if resumed is None else _folder_of(given, stem, resumed))
    os.environ[VARIABLE] = folder
    return folder


def _number(name: str) -> int:
    return int(os.environ.get(name, "0"))


def _new_folder(given: str | None, stem: str) -> Path:
    if given is None:
        return _claimed(stem)
    folder = Path(given)
    if any((folder / name).exists() for name in RECORDS):
        raise InputError(
            f"{folder} holds a run already: go on with it by --ckpt_path last, or choose another "
            "--trainer.default_root_dir"
        )
    return folder


def _claimed(stem: str) -> Path:
    Path("runs").mkdir(exist_ok=True)
    number = max(_numbered(stem), default=0) + 1
    while True:
        try:
            folder = _path(stem, number)
            folder.mkdir()  # fails if a run that starts at the same time was quicker
        except FileExistsError:
            number += 1
        else:
            return folder


def _path(stem: str, number: int) -> Path:
    return Path("runs") / (stem if number == 1 else f"{stem}-{number}")


def _folder_of(given: str | None, stem: str, resumed: str) -> Path:
    if given is not None:
        return Path(given)
    if resumed != "last":
        return Path(resumed).parent.parent
    taken = _numbered(stem)
    if not taken:
        raise InputError(f"nothing to go on with: no run in {_path(stem, 1).resolve()}")
    return _path(stem, max(taken))


def _numbered(stem: str) -> list[int]:
    pattern = re.compile(re.escape(stem) + r"(?:-(\d+))?")
    folders = Path("runs").glob(f"{stem}*")
    matches = (pattern.fullmatch(folder.name) for folder in folders)
    return [int(match.group(1) or 1) for match in matches if match]
