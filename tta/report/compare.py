"""Several runs side by side: rows, a terminal table, a CSV file and a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich import box
from rich.console import Group as RenderGroup
from rich.table import Table
from rich.text import Text

from tta.errors import InputError
from tta.report.compare_figures import Group, draw_bars, draw_overlay
from tta.report.render import make_card, relative, render, to_csv, write_atomically
from tta.report.run import Run, read_run
from tta.report.verdict import count, gain, percent, points

COLUMNS = (
    "Adapter",
    "Accuracy",
    "Against source",
    "ECE",
    "Collapse",
    "Resets",
    "Forwards per sample",
    "Backwards per sample",
    "Samples per second",
)
TERMINAL_COLUMNS = ("Adapter", "Acc.", "vs source", "ECE", "Collapse", "Resets", "Forw.", "Backw.", "Samples/s")
DISTINCTIONS: tuple[Callable[[Run], str], ...] = (
    lambda run: f"seed {run.text('seed')}",
    lambda run: run.text("protocol"),
    lambda run: run.path.resolve().name,
)


def write_comparison(run_folders: Sequence[str | Path], output: str | Path) -> Path:
    """Write one self-contained page that compares runs, and `comparison.csv` beside it.

    Args:
        run_folders: Folders that `tta adapt` wrote, one or more; a folder given twice counts once.
        output: The page's file, ending in `.html`, or the folder to write `comparison.html` into.

    Returns:
        The path of the page.

    Raises:
        InputError: No folder was given, or one cannot be read, or the output cannot be written.
    """
    folders = list(dict.fromkeys(Path(folder) for folder in run_folders))
    if not folders:
        raise InputError("no run folder given to compare: give folders that `tta adapt` wrote")
    runs = [read_run(folder) for folder in folders]
    page = Path(output)
    if page.suffix.lower() != ".html":
        page = page / "comparison.html"
    write_atomically(page.parent / "comparison.csv", to_csv(comparison_rows(runs)))
    return write_atomically(page, _render(runs, page.parent))


def comparison_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One flat record per run, grouped by stream and order.

    Shares and accuracies are in [0, 1], `gain` in [-1, 1], `collapsed_at` and `below_source_at` in samples; `None` is
    unknown.
    """
    return [_row(run, label) for group in group_runs(runs) for run, label in zip(group.runs, group.labels, strict=True)]


def comparison_table(runs: Sequence[Run]) -> RenderGroup:
    """The comparison for a terminal of 80 columns: a table per stream and order, one line per run."""
    return RenderGroup(*(_terminal_table(group) for group in group_runs(runs)))


def _terminal_table(group: Group) -> Table:
    table = Table(
        title=Text(group.title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for name, title in zip(COLUMNS, TERMINAL_COLUMNS, strict=True):
        table.add_column(title, justify="left" if name in ("Adapter", "Collapse") else "right")
    for run, label in zip(group.runs, group.labels, strict=True):
        table.add_row(*(Text(text) for text, _ in _cells(_row(run, label))))
    return table


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group runs by stream and order, in order of appearance, and name each run uniquely in its group."""
    members: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        members.setdefault((run.text("stream"), run.text("order")), []).append(run)
    groups = []
    for (stream, order), group in members.items():
        groups.append(Group(stream, order, tuple(group), tuple(_label(run, group) for run in group)))
    return groups


def _label(run: Run, group: list[Run]) -> str:
    """The adapter's name, with the first thing that tells it from the group's other runs of that adapter."""
    adapter = run.text("adapter")
    alike = [other for other in group if other.text("adapter") == adapter]
    if len(alike) == 1:
        return adapter
    for describe in DISTINCTIONS:
        if len({describe(other) for other in alike}) == len(alike):
            return f"{adapter} ({describe(run)})"
    return f"{adapter} ({run.path})"


def _row(run: Run, label: str) -> dict[str, Any]:
    def flag(name: str) -> bool | None:
        value = run.number("collapse", name)
        return None if value is None else bool(value)

    return {
        "stream": run.text("stream"),
        "order": run.text("order"),
        "protocol": run.text("protocol"),
        "seed": run.summary.get("seed"),
        "adapter": label,
        "run": str(run.path),
        "samples": run.number("samples"),
        "accuracy": run.number("accuracy"),
        "source_accuracy": run.number("source_accuracy"),
        "gain": gain(run),
        "ece": run.number("ece"),
        "collapsed": flag("collapsed"),
        "collapsed_at": run.number("collapse", "collapsed_at"),
        "below_source": flag("below_source"),
        "below_source_at": run.number("collapse", "below_source_at"),
        "resets": run.number("resets"),
        "forwards_per_sample": run.number("cost", "forwards_per_sample"),
        "backwards_per_sample": run.number("cost", "backwards_per_sample"),
        "forward_equivalents_per_sample": run.number("cost", "forward_equivalents_per_sample"),
        "samples_per_second": run.number("cost", "samples_per_second"),
        "device": run.text("cost", "device"),
    }


def _cells(row: dict[str, Any]) -> list[tuple[str, float | str | None]]:
    """`(text, sort key)` of each table cell, in the order of `COLUMNS`."""
    collapse, severity = _collapse(row)
    rates = [row[key] for key in ("forwards_per_sample", "backwards_per_sample")]
    return [
        (row["adapter"], row["adapter"]),
        (percent(row["accuracy"]), row["accuracy"]),
        (points(row["gain"]), row["gain"]),
        (percent(row["ece"]), row["ece"]),
        (collapse, severity),
        (count(row["resets"]), row["resets"]),
        *(("unknown" if rate is None else f"{rate:.3g}", rate) for rate in rates),
        (count(row["samples_per_second"]), row["samples_per_second"]),
    ]


def _collapse(row: dict[str, Any]) -> tuple[str, float | None]:
    """What to say of collapse, and a key that sorts from harmless to early collapse."""
    if row["collapsed"]:
        at = row["collapsed_at"]
        return ("collapsed" if at is None else f"collapsed after {count(at)}"), 2.0 + 1.0 / (1.0 + (at or 0.0))
    if row["below_source"]:
        at = row["below_source_at"]
        return ("below source" if at is None else f"below source at {count(at)}"), 1.0 + 1.0 / (1.0 + (at or 0.0))
    return ("not measured", None) if row["collapsed"] is None else ("none", 0.0)


def _render(runs: Sequence[Run], folder: Path) -> str:
    groups = group_runs(runs)
    colors = {
        label: index for index, label in enumerate(dict.fromkeys(name for group in groups for name in group.labels))
    }
    return render(
        "comparison.html",
        title=f"{len(runs)} runs compared" if len(runs) > 1 else "1 run",
        columns=COLUMNS,
        groups=[_render_group(group, index, folder, colors) for index, group in enumerate(groups)],
        bars=make_card(
            draw_bars(groups), "bars", "Bar charts of the online accuracy of each adapter, one per stream and order."
        ),
    )


def _render_group(group: Group, index: int, folder: Path, colors: dict[str, int]) -> dict[str, Any]:
    rows = [_row(run, label) for run, label in zip(group.runs, group.labels, strict=True)]
    best = max((row["accuracy"] for row in rows if row["accuracy"] is not None), default=None)
    alt = f"Line chart of window accuracy against samples seen on {group.title}, one line per adapter."
    return {
        "title": group.title,
        "mixed": len({(run.number("samples"), tuple(run.summary.get("domains") or ())) for run in group.runs}) > 1,
        "card": make_card(draw_overlay(group, colors), f"overlay-{index}", alt),
        "rows": [
            {
                "cells": _cells(row),
                "link": _link(run, folder),
                "best": len(rows) > 1 and best is not None and row["accuracy"] == best,
                "tone": "bad" if row["collapsed"] else "warning" if row["below_source"] else "neutral",
                "gain_tone": "neutral" if not row["gain"] else "good" if row["gain"] > 0 else "bad",
            }
            for run, row in zip(group.runs, rows, strict=True)
        ],
    }


def _link(run: Run, folder: Path) -> str:
    """The address of the run's own page relative to the comparison's, empty where it was not written."""
    page = run.path / "report.html"
    if not page.is_file():
        return ""
    return quote(relative(page, folder))
