"""Synthetic matrices: run folders as cells of systems, models, streams and seeds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import write_run
from tests.report.test_report_browser import browser
from tta.leaderboard import Entry, Leaderboard, build_leaderboard, write_pages
from tta.leaderboard.board import Row

__all__ = ["browser"]

Answers = Callable[..., Entry]

MODELS = ("resnet", "vit")
STREAMS = ("continual", "label_sorted")
SEEDS = (0, 1)

SYSTEMS: dict[str, dict[str, Any]] = {
    "source": {"family": "source", "gain": 0.0, "cost": 1.0},
    "bnstats": {"gain": 0.12, "cost": 1.0},
    "tent": {"gain": 0.2, "cost": 3.0},
    "sar": {"gain": 0.16, "cost": 5.6},
    "views (tent)": {"family": "views", "gain": 0.05, "cost": 3.06, "matches": ("tent",)},
    "views (sar)": {"family": "views", "gain": 0.3, "cost": 5.35, "matches": ("sar",)},
}
"""Each beats the source by `gain` from a quarter of the stream on."""


def write_cell(folder: Path, cost: float | None, **options: Any) -> Path:
    """Write a run that cost so many forward-equivalents per sample, with a page of its own."""
    costs = {"seconds": 12.1, "samples_per_second": 410.0, "peak_memory_mb": 812.0, "device": "cpu"}
    if cost is not None:
        costs["forward_equivalents_per_sample"] = cost
    summary = {"cost": costs, **options.pop("summary", {})}
    write_run(folder, **{"samples": 384, "batch": 16, **options}, summary=summary)
    (folder / "report.html").write_text("a run's page")
    return folder


def write_matrix(root: Path, samples: int = 384) -> list[Entry]:
    """All systems on two models and two streams with two seeds; Tent collapses on the sorted stream."""
    entries = []
    for model, stream, seed in itertools.product(MODELS, STREAMS, SEEDS):
        task = 10 * (MODELS.index(model) * len(STREAMS) + STREAMS.index(stream))
        for system, facts in SYSTEMS.items():
            collapses = system == "tent" and stream == "label_sorted"
            folder = write_cell(
                root / "cells" / model / stream / system / f"seed{seed}",
                facts["cost"],
                samples=samples,
                gain=facts["gain"],
                seed=task + seed,
                collapse_at=samples // 4 if collapses else None,
            )
            entry = Entry(
                system, model, stream, seed, folder, "", facts.get("family", "adapter"), facts.get("matches", ())
            )
            entries.append(entry)
    return entries


@pytest.fixture(scope="session")
def make_cell() -> Callable[..., Path]:
    return write_cell


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results, in whose `cells` nothing is changed by a test."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="session")
def entries(results: Path) -> list[Entry]:
    return write_matrix(results)


@pytest.fixture(scope="session")
def board(entries: list[Entry]) -> Leaderboard:
    return build_leaderboard(entries, {"ece": False}, resamples=50)


def build(*entries: Entry, metrics: dict[str, bool] | None = None) -> Leaderboard:
    return build_leaderboard(entries, metrics or {}, resamples=20)


def row_of(board: Leaderboard, system: str) -> Row:
    return next(row for row in board.rows if row.system == system)


def page_of(board: Leaderboard, folder: Path) -> str:
    return write_pages(board, folder, "Made up").read_text(encoding="utf-8")


@pytest.fixture
def answers(make_cell: Callable[..., Path], tmp_path: Path) -> Answers:
    """Makes the entry of a run whose answers are right (1) or wrong (0) as given, on images of class 0."""

    def make(
        system: str,
        correct: Sequence[int],
        cost: float | None = 1.0,
        task: tuple[str, str, int] = ("net", "stream", 0),
        label: int = 0,
        matches: tuple[str, ...] = (),
        domains: Sequence[str] = ("fog:5",),
        **options: object,
    ) -> Entry:
        family = "source" if system == "source" else "views" if matches else "adapter"
        folder = make_cell(tmp_path.joinpath(*map(str, task), system), cost, samples=len(correct), **options)
        lines = ["position,index,domain,label,prediction,confidence,source_prediction,finite"]
        lines += [
            f"{i},{i},{domains[i * len(domains) // len(correct)]},{label},{0 if right else 1},0.5,0,1"
            for i, right in enumerate(correct)
        ]
        (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
        return Entry(system, *task, folder, family=family, matches=matches)

    return make
