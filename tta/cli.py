"""The ``tta`` command."""

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from traceback import extract_tb
from typing import NoReturn

from tta.errors import InputError
from tta.messages import one_line
from tta.quiet import quiet
from tta.run_folder import told_to_children

COMMANDS = {
    "fit": "tta.lightning_cli:fit",
    "adapt": "tta.lightning_cli:adapt",
    "test": "tta.lightning_cli:test",
    "predict": "tta.lightning_cli:predict",
    "stream": "tta.stream_cli:stream",
    "report": "tta.report.command:report",
}
"""Where each command lives; imported when it is called, since Lightning takes seconds."""

HELP = """\
usage: tta COMMAND [options]

Test-time adaptation of vision classifiers: online, without labels, with collapse measured.

commands:
  fit      train a source model, or what a method needs, on labelled source images
  adapt    adapt a source model online over a stream of shifted batches, and report whether it helped
  test     evaluate a source or an adapted model on a stream, frozen
  predict  write a frozen model's predictions on a stream
  stream   draw a stream before anything is adapted to it: domains, severities, classes, images
  report   draw the page of a run again, or one page that compares several runs

'tta COMMAND --help' explains the options of a command. Parts of a configuration compose, later ones win:

  tta fit    --config configs/data/digits_source.yaml --config configs/model/digits_resnet.yaml
  tta stream --config configs/data/digits.yaml
  tta adapt  --config configs/data/digits.yaml --config configs/model/digits_resnet.yaml \\
             --config configs/adapter/sar.yaml --model.weights runs/.../weights.safetensors

--traceback shows where an error came from.
"""


def main(arguments: Sequence[str]) -> int:
    """Run a command.

    Args:
        arguments: Words after ``tta``.

    Returns:
        Exit status: 0, or 2 when something that was given cannot be used, said in one line on standard error.
    """
    words = [word for word in arguments if word != "--traceback"]
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(HELP)
        return 0
    try:
        _run(words[0], words[1:])
    except Exception as error:
        message = _message(error)
        if message is None or "--traceback" in arguments:
            raise
        sys.stderr.write(f"tta: error: {message}\n")
        return 2
    return 0


def _message(error: Exception) -> str | None:
    if isinstance(error, InputError):
        # A loader's worker passes its error on with the whole traceback; what is wrong stands in the last line.
        return str(error).strip().rpartition("\n")[2].removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")
    if isinstance(error, ValueError) and "Union subtypes" in str(error):
        # jsonargparse hides an InputError of a class inside one of its own where the class is optional.
        return one_line(str(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        place = f" {error.filename}" if error.filename else ""
        return f"cannot write{place} ({error.strerror}): make room, then go on with --ckpt_path last"
    if "DataLoader worker" in str(error):
        return _of_a_worker(str(error))
    if isinstance(error, ConnectionError) and _from_a_loader(error):
        return _of_a_worker(f"a DataLoader worker died while it handed over a batch ({error.strerror})")
    if type(error).__name__ == "MisconfigurationException":  # Lightning's, by name to spare its import
        return " ".join(str(error).split())
    if isinstance(error, RuntimeError) and str(error).startswith("Error(s) in loading state_dict"):
        # Files of weights are checked as they are read: this is Lightning taking up a checkpoint.
        what = (str(error).splitlines()[1:] or [""])[0].strip().rstrip(". ")
        first = what.partition(", ")[0] if "key(s)" in what else what
        return (
            f"the checkpoint is of another network or adapter ({first}): --ckpt_path resumes the very same run; source "
            "weights go to --model.weights"
        )
    return None


def _of_a_worker(said: str) -> str:
    """What a loader's worker died of: its exception stands in the last line of the traceback that it passes on."""
    if "Caught " in said:
        reason = said.strip().rpartition("\n")[2]
        return f"the data set failed in a worker of the loader: {reason}; --traceback shows where"
    reason = " ".join(said.split())
    return f"{reason}: if memory ran out, lower data.num_workers or data.batch_size; go on with --ckpt_path last"


def _from_a_loader(error: Exception) -> bool:
    return any("torch/utils/data" in Path(frame.filename).as_posix() for frame in extract_tb(error.__traceback__))


def _run(command: str, words: Sequence[str]) -> None:
    if command not in COMMANDS:
        raise InputError(f"unknown command {command!r}: choose from {', '.join(COMMANDS)}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # configurations may name classes of the folder the command is given in
    module, function = COMMANDS[command].split(":")
    with quiet(), told_to_children():
        getattr(importlib.import_module(module), function)(words)


def entry_point() -> NoReturn:
    """The console script."""
    sys.exit(main(sys.argv[1:]))
