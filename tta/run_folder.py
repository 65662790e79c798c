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


def choose_run_folder(given: str | None, stem: str, ckpt_path: str | None) -> str:
    """The folder of the run that is about to start, or of the one that goes on.

    Args:
        given: Folder that the user named, if any.
        stem: Name under ``runs/`` otherwise; a number is added where it is taken.
        ckpt_path: ``last``, a checkpoint file, or ``None`` for a new run.

    Returns:
        Path of the folder.

    Raises:
        InputError: If a new run is to go where one lies, or ``last`` has nothing to go on with.
    """
    if int(os.environ.get("LOCAL_RANK", "0")) > 0:
        return os.environ.get(VARIABLE, given or str(Path("runs") / stem))
    folder = str(_new_folder(given, stem) if ckpt_path is None else _folder_of(given, stem, ckpt_path))
    os.environ[VARIABLE] = folder
    return folder


def _new_folder(given: str | None, stem: str) -> Path:
    if given is None:
        taken = _numbered(stem)
        return Path("runs") / (f"{stem}-{max(taken) + 1}" if taken else stem)
    folder = Path(given)
    if any((folder / name).exists() for name in ("metrics.csv", "checkpoints")):
        raise InputError(
            f"{folder} holds a run already: go on with it by --ckpt_path last, or choose another "
            "--trainer.default_root_dir"
        )
    return folder


def _folder_of(given: str | None, stem: str, ckpt_path: str) -> Path:
    if given is not None:
        return Path(given)
    if ckpt_path != "last":
        return Path(ckpt_path).parent.parent
    taken = _numbered(stem)
    if not taken:
        raise InputError(f"nothing to go on with: no run in {(Path('runs') / stem).resolve()}")
    return Path("runs") / (stem if max(taken) == 1 else f"{stem}-{max(taken)}")


def _numbered(stem: str) -> list[int]:
    pattern = re.compile(re.escape(stem) + r"(?:-(\d+))?")
    folders = Path("runs").glob(f"{stem}*")
    matches = (pattern.fullmatch(folder.name) for folder in folders)
    return [int(match.group(1) or 1) for match in matches if match]
