"""Cells as a sweep of Weights & Biases: each run of an agent is one cell."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from tta.errors import InputError, written
from tta.matrix.cells import Cell


def write_sweep(file: Path, matrix_file: Path, results_folder: Path, cells: Sequence[Cell]) -> None:
    """Write a file that ``wandb sweep`` takes.

    It is a grid over the names of the cells. Source models that are trained have no run of their own: the first cell
    that needs one trains it, others wait. Paths are written as they are given, so agents start in this folder, or in
    one that looks the same.

    Args:
        file: The file.
        matrix_file: The matrix that the cells are of.
        results_folder: Folder of results.
        cells: The cells.

    Raises:
        InputError: If another file is there already, or this one cannot be written.
    """
    command = ["${env}", "${interpreter}", "-m", "tta", "compare", str(matrix_file), "--output", str(results_folder)]
    sweep = {
        "name": matrix_file.stem,
        "program": "tta",  # wandb asks for one; the command says what runs
        "command": [*command, "${args}"],
        "method": "grid",
        "parameters": {"cell": {"values": [cell.name for cell in cells if cell.command == "adapt"]}},
    }
    text = yaml.safe_dump(sweep, sort_keys=False, width=1000)
    if file.exists() and (not file.is_file() or file.read_bytes() != text.encode()):
        raise InputError(f"--write-sweep: {file} holds something else: choose another file, or take it away")
    with written(file, "write it again"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
