"""The ``tta`` command."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from tta.errors import InputError
from tta.failures import what_failed
from tta.quiet import quiet
from tta.run_folder import told_to_children

COMMANDS = {
    "fit": "tta.lightning_cli:fit",
    "adapt": "tta.lightning_cli:adapt",
    "test": "tta.lightning_cli:test",
    "predict": "tta.lightning_cli:predict",
    "stream": "tta.stream_cli:stream",
    "report": "tta.report.command:report",
    "compare": "tta.compare_cli:compare",
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
  compare  run adapters x models x streams x seeds from one file, and rank them on one page

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
        message = what_failed(error)
        if message is None or "--traceback" in arguments:
            raise
        sys.stderr.write(f"tta: error: {message}\n")
        return 2
    return 0


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
