"""What the page says of systems that cannot be told apart, or that did not run on the same tasks."""

from __future__ import annotations

import csv
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from tests.leaderboard.conftest import Answers, build, page_of, row_of
from tta.leaderboard import Leaderboard, build_leaderboard
from tta.leaderboard.cost_figure import pareto, priced
from tta.leaderboard.headline import headline, significant
from tta.leaderboard.page import limits
from tta.leaderboard.page_tables import system_rows


def test_without_frozen_views_nothing_is_said_of_them(answers: Answers, tmp_path: Path) -> None:
    board = build(answers("source", [1, 0, 0, 0]), answers("bnstats", [1, 1, 1, 1]))
    assert np.isnan(row_of(board, "bnstats").value("views_difference"))
    assert headline(board).sentences[-1] == "Against the frozen source model 1 adapter is better (95 % intervals)."
    assert "iews" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", page_of(board, tmp_path), flags=re.S)


@pytest.fixture
def spared(answers: Answers) -> Leaderboard:
    """An adapter that was spared the hard task beside one that did both, and better than the source."""
    easy, hard = ("net", "easy", 0), ("net", "hard", 0)
    costs = {"summary": {"ece": 0.01}}
    return build(
        *(answers("source", right, task=task) for task, right in ((easy, [1] * 6 + [0] * 4), (hard, [0] * 10))),
        *(answers("tent", right, 2, task) for task, right in ((easy, [1] * 9 + [0]), (hard, [1] * 3 + [0] * 7))),
        answers("spared", [1] * 8 + [0] * 2, 1.5, easy, **costs),
    )


def test_a_system_that_lacks_a_task_is_in_no_best(spared: Leaderboard, tmp_path: Path) -> None:
    assert row_of(spared, "spared").value("accuracy") > row_of(spared, "tent").value("accuracy")
    assert spared.coverage(row_of(spared, "spared")) == "1 of 2 tasks"
    assert spared.coverage(row_of(spared, "tent")) == ""
    assert {row.system for row in spared.comparable("ece")} == {"source", "tent"}
    assert [row.system for row in pareto(priced(spared))] == ["source", "tent"]
    bests = [cells[0].text for cells in system_rows(spared) if any(cell.best for cell in cells)]
    assert "spared" not in bests
    page = page_of(spared, tmp_path)
    assert re.search(r"Highest mean accuracy</div><div class=.value.>60.0", page)
    assert "<small>1 of 2 tasks</small>" in page
    assert "Not shown, as they lack tasks: spared." in unescape(page)
    tasks = {line["system"]: line["tasks"] for line in csv.DictReader((tmp_path / "leaderboard.csv").open())}
    assert tasks == {"source": "2", "tent": "2", "spared": "1"}
    assert row_of(spared, "spared").value("mean_rank") == 3


def test_a_system_that_lacks_a_task_is_said_and_comes_last_in_ties(answers: Answers) -> None:
    easy, hard = ("net", "easy", 0), ("net", "hard", 0)
    board = build(
        answers("spared", [1, 0], task=easy), answers("a", [1, 0], task=easy), answers("a", [0, 0], task=hard)
    )
    assert [row.system for row in board.rows] == ["a", "spared"]
    assert headline(board).sentences[0].startswith("a ranks first of 2 systems, tied with spared: mean accuracy 25.0 %")
    assert headline(board).sentences[-1].endswith("for lack of tasks that others have: spared (1 of 2 tasks).")


def test_a_leader_that_lacks_a_task_is_marked(answers: Answers, tmp_path: Path) -> None:
    easy, hard = ("net", "easy", 0), ("net", "hard", 0)
    runs = ("source", [1, 0], easy), ("source", [0, 1], hard), ("spared", [1, 1], easy)
    board = build(*(answers(system, right, task=task) for system, right, task in runs))
    page = page_of(board, tmp_path)
    assert "spared ranks first of 2 systems, on 1 of 2 tasks: mean accuracy 100.0" in page
    assert "An adapter leads, on 1 of 2 tasks" in page
    assert re.search(
        r"First by consensus</div><div class=.value.>spared</div><div class=.detail.>rank .*1 of 2 tasks", page
    )


def test_an_even_pair_is_tied_and_not_first(answers: Answers, tmp_path: Path) -> None:
    rows = {"a": (90, 50), "b": (60, 79)}
    entries = [
        answers(system, [1] * right + [0] * (100 - right), task=("net", f"task{task}", 0))
        for system, both in rows.items()
        for task, right in enumerate(both)
    ]
    board = build_leaderboard(entries, {}, resamples=200)
    rank = row_of(board, "a").quantities["kemeny_rank"]
    assert (rank.value, rank.low, rank.high) == (1, 1, 2)
    assert "a ranks first of 2 systems, tied with b: " in headline(board).sentences[0]
    page = page_of(board, tmp_path)
    assert "First place is tied" in page
    assert "tied with b</div>" in page
    assert "b (tied)" in page


def test_neighbours_differ_only_if_other_seeds_would_not_turn_them(answers: Answers) -> None:
    runs = {"lucky": ([1] * 60, [0] * 60, [1] * 60), "even": ([1, 0] * 30,) * 3}
    entries = [
        answers(system, right, task=("net", "stream", seed))
        for system, all_of in runs.items()
        for seed, right in enumerate(all_of)
    ]
    board = build_leaderboard(entries, {}, resamples=200)
    (test,) = board.ranking.neighbours if board.ranking else ()
    assert test.adjusted_p < 0.05
    assert not significant(test)
    assert "95 % interval of the difference over seeds and images" in headline(board).sentences[1]


def test_a_difference_within_its_interval_has_no_colour(answers: Answers) -> None:
    sure, unsure = [1] * 40, [1] * 21 + [0] * 19
    board = build(answers("source", [1] * 20 + [0] * 20), answers("sure", sure), answers("unsure", unsure[::-1]))
    tones = {cells[0].text: cells[2].tone for cells in system_rows(board)}
    assert tones == {"sure": "good", "unsure": "neutral", "source": "neutral"}


@pytest.mark.parametrize(("seeds", "words"), [(1, "With one seed"), (2, "half of the variance"), (3, "")])
def test_says_what_few_seeds_leave_open(answers: Answers, seeds: int, words: str) -> None:
    entries = [
        answers(system, [1, 0], task=("net", "s", seed)) for system in ("source", "tent") for seed in range(seeds)
    ]
    said = limits(build(*entries, metrics={"ece": False}))
    assert words in said
    assert ("Further metrics (ece)" in said) == bool(words)
