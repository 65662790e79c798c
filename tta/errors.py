"""The one exception that means "the user can fix this"."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn


class InputError(ValueError):
    """Something that was given cannot be used: a name, a value, a file, a shape.

    The message is one line: the bad value, the allowed ones, the place, the remedy. The command line prints it
    without a traceback and exits with status 2.
    """


class CommandParser(argparse.ArgumentParser):
    """A parser of a ``tta`` command whose errors are such; ``prog`` is ``tta`` and the command."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong, in one line."""
        raise InputError(f"{self.prog.removeprefix('tta ')}: {message}; see '{self.prog} --help'")


def first_line(error: BaseException) -> str:
    """What an exception says, in one line; its name if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def written(path: Path, remedy: str) -> Iterator[None]:
    """What fails to write ``path`` within the context, such as on a full disk, is said in one line.

    Args:
        path: The file.
        remedy: What to do when it can be written again.

    Raises:
        InputError: If it fails.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise InputError(f"cannot write {path} ({reason}): once it can be written, {remedy}") from error
