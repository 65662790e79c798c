"""The leaderboard as CSV files, as a table for the terminal and as one for Weights & Biases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tta.leaderboard.board import CLOCK, MEANS, METHODS, SHARES, Leaderboard, Row
from tta.leaderboard.cells import Cell
from tta.report.render import relative

if TYPE_CHECKING:
    import wandb

Record: TypeAlias = dict[str, str | int | float]
DIGITS = 6
ESTIMATED = (
    "accuracy",
    "gain",
    "views_difference",
    *(f"{method}_rank" for method in METHODS),
    *(m for m in METHODS if m != "mean"),
)


def system_records(board: Leaderboard) -> list[Record]:
    """One flat record per system, best first: every figure, the interval of those that have one, the cells it rests on.

    `tasks` counts those on which the accuracy is known: means of systems with other tasks cannot be compared.
    Accuracies, shares and calibration errors are in [0, 1], differences of accuracies in [-1, 1]; empty is unknown.
    """
    return [_system_record(row) for row in board.rows]


def _system_record(row: Row) -> Record:
    record: Record = {
        "system": row.system,
        "family": row.family,
        "matches": ", ".join(row.matches),
        "cells": len(row.cells),
        "finished": row.finished,
        "tasks": len(row.tasks()),
    }
    for name, quantity in row.quantities.items():
        record[name] = _number(quantity.value)
        if name in ESTIMATED:
            record |= {f"{name}_low": _number(quantity.low), f"{name}_high": _number(quantity.high)}
        record[f"{name}_cells"] = quantity.cells
    return record


def cell_records(board: Leaderboard, folder: Path) -> list[Record]:
    """One flat record per cell, in the order given; failed ones with their error, in one line.

    Args:
        board: The leaderboard.
        folder: Where the records will lie; runs are named relative to it.
    """
    names = ("accuracy", "gain", "views_difference", *MEANS, *SHARES, "collapsed_at", "below_source_at", *board.metrics)
    return [
        _place(cell)
        | {
            "family": cell.entry.family,
            "run": relative(cell.entry.folder, folder) if cell.finished and cell.entry.folder else "",
            "samples": len(cell.correct) if cell.finished else "",
            **{name: _number(cell.value(name)) for name in dict.fromkeys(names)},
            "error": error_of(cell, folder),
        }
        for cell in board.cells
    ]


def timing_records(board: Leaderboard) -> list[Record]:
    """What depends on the clock and the machine, one record per cell."""
    return [
        _place(cell) | {name: _number(cell.value(name)) for name in CLOCK} | {"device": cell.device}
        for cell in board.cells
    ]


def _place(cell: Cell) -> Record:
    entry = cell.entry
    return {"model": entry.model, "stream": entry.stream, "seed": entry.seed, "system": entry.system}


def _number(value: float) -> str | int | float:
    if np.isnan(value):
        return ""
    return int(value) if float(value).is_integer() else round(float(value), DIGITS)


def error_of(cell: Cell, folder: Path) -> str:
    """Why a cell failed, in one line, with paths relative to a folder."""
    line = (cell.error.splitlines() or [""])[0]
    for prefix in dict.fromkeys((f"{folder.resolve()}{os.sep}", f"{folder}{os.sep}")):
        line = line.replace(prefix, "")
    return line


def leaderboard_wandb(board: Leaderboard) -> wandb.Table:
    """The leaderboard as a table to log, with the columns of `leaderboard.csv`."""
    import wandb

    records = system_records(board)
    rows = [[None if value == "" else value for value in record.values()] for record in records]
    return wandb.Table(columns=list(records[0]), data=rows, allow_mixed_types=True)
