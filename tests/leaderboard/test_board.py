"""Figures of systems: right on runs whose every answer is known, and sound where parts are missing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.leaderboard.conftest import Answers, build, row_of
from tta.errors import InputError
from tta.leaderboard import Entry, Leaderboard, build_leaderboard


def test_figures_of_a_single_block(answers: Answers) -> None:
    board = build(
        answers("source", [1, 1, 0, 0]),
        answers("tent", [1, 0, 1, 1], cost=2.0),
        answers("views (tent)", [1, 1, 1, 1], cost=2.0, matches=("tent",)),
    )
    tent = row_of(board, "tent")
    assert tent.value("accuracy") == 0.75
    assert tent.value("gain") == 0.25
    assert tent.value("arise") == pytest.approx((2 * 0.5 - 1 * 2) / 4)
    assert (tent.value("views_accuracy"), tent.value("views_difference")) == (1.0, -0.25)
    assert tent.value("regret") == 25
    assert tent.value("anytime") == pytest.approx(0.5 * 0.5 + 0.5 * 0.75)
    assert row_of(board, "views (tent)").value("regret") == -50
    assert [row.system for row in board.rows] == ["views (tent)", "tent", "source"]


def test_the_frozen_model_at_the_cost_of_one_pass_is_the_source(answers: Answers) -> None:
    views = answers("views (other)", [1] * 4, 1.3, matches=("other",))
    runs = answers("source", [1, 0, 0, 0]), answers("cheap", [1, 1, 0, 0], 1.05), answers("dear", [1] * 4, 1.2)
    board = build(*runs, views)
    cheap, dear = row_of(board, "cheap"), row_of(board, "dear")
    assert (cheap.value("views_accuracy"), cheap.value("views_difference")) == (0.25, 0.25)
    assert np.isnan(dear.value("views_difference"))
    assert dear.quantities["views_difference"].cells == 0


def test_at_the_cost_of_the_source_arise_is_the_gain(answers: Answers) -> None:
    board = build(answers("source", [1, 0]), answers("bnstats", [1, 1], cost=1.0))
    assert row_of(board, "bnstats").value("arise") == row_of(board, "bnstats").value("gain") == 0.5


def test_tasks_weigh_alike_whatever_their_seeds(answers: Answers) -> None:
    entries = [answers("source", [0, 0], task=("net", stream, seed)) for stream, seed in (("a", 0), ("a", 1), ("b", 0))]
    entries += [answers("tent", [1, 1], task=("net", "a", seed)) for seed in (0, 1)]
    board = build(*entries, answers("tent", [0, 0], task=("net", "b", 0)))
    assert row_of(board, "tent").value("accuracy") == row_of(board, "tent").value("gain") == 0.5


def test_a_tie_puts_the_more_accurate_system_first(answers: Answers) -> None:
    entries = [answers("first", [1, 1, 1, 1], task=("net", "a", 0)), answers("first", [0] * 4, task=("net", "b", 0))]
    entries += [answers("second", [1, 1, 1, 0], task=("net", "a", 0)), answers("second", [1] * 4, task=("net", "b", 0))]
    assert [row.system for row in build(*entries).rows] == ["second", "first"]


def test_unknown_labels_count_for_nothing(answers: Answers) -> None:
    entries = [answers("source", [1, 0], task=("net", "a", 0)), answers("tent", [1, 1], task=("net", "a", 0))]
    entries += [answers(system, [0, 0], task=("net", "b", 0), label=-1) for system in ("source", "tent")]
    tent = row_of(build(*entries), "tent")
    assert tent.value("accuracy") == 1
    assert (tent.finished, tent.quantities["accuracy"].cells, tent.quantities["gain"].cells) == (2, 1, 1)


@pytest.mark.parametrize("label", [0, -1])
def test_without_rivals_or_labels_nothing_is_ranked(answers: Answers, label: int) -> None:
    entries = [answers("tent", [1, 0], label=label)]
    if label < 0:
        entries.append(answers("sar", [1, 0], label=label))
    board = build(*entries)
    assert board.ranking is None
    assert (board.leader is None) == (label < 0)
    assert np.isnan(board.rows[0].value("kemeny_rank"))


def test_missing_figures_are_unknown_and_counted(answers: Answers) -> None:
    unmeasured = {"collapse": {"collapsed": None}, "ece": None}
    board = build(
        answers("source", [1, 0], cost=None, summary=unmeasured), answers("tent", [1, 1], cost=None, summary=unmeasured)
    )
    tent = row_of(board, "tent")
    for name in ("ece", "forward_equivalents", "arise", "anytime", "collapsed", "below_source"):
        assert np.isnan(tent.value(name))
        assert tent.quantities[name].cells == 0
    assert tent.value("gain") == 0.5


def test_further_metrics_are_read_and_ranked_by(answers: Answers) -> None:
    entries = [
        answers(system, [1, 0, 1, 1], summary={"nested": {"loss": loss}, "order": "shuffled"})
        for system, loss in (("a", 3.0), ("b", 1.0), ("c", 2.0))
    ]
    board = build(*entries, metrics={"nested.loss": False})
    assert [row.system for row in board.rows] == ["b", "c", "a"]
    assert row_of(board, "a").value("nested.loss") == 3


def test_a_metric_of_no_run_is_an_error_that_names_those_there_are(answers: Answers) -> None:
    entries = [answers(system, [1, 0], summary={"nested": {"loss": 1.0}}) for system in ("source", "tent")]
    with pytest.raises(
        InputError, match=r"no run's summary.json has a figure 'eec': choose from .*\bece,.* nested.loss"
    ):
        build(*entries, metrics={"ece": False, "eec": False})
    with pytest.raises(InputError, match="'accuracy' is a column of every leaderboard"):
        build(*entries, metrics={"accuracy": True})


def test_a_metric_that_every_run_leaves_open_is_unknown(answers: Answers) -> None:
    board = build(
        *(answers(system, [1, 0], summary={"ece": None}) for system in ("source", "tent")), metrics={"ece": False}
    )
    assert np.isnan(row_of(board, "tent").value("ece"))


def test_a_gain_falls_within_domains_that_come_again(answers: Answers) -> None:
    source, falling = [0] * 300, [1] * 200 + [0] * 100
    for name, domains, expected in (
        ("once", ("fog:5", "snow:5", "frost:5"), np.nan),
        ("again", ("fog:5", "snow:5", "fog:5"), 1),
    ):
        task = ("net", name, 0)
        entries = [
            answers("source", source, task=task, domains=domains),
            answers("tent", falling, task=task, domains=domains),
        ]
        assert row_of(build(*entries), "tent").value("gain_falls") == pytest.approx(expected, nan_ok=True)


def test_cells_of_a_block_share_what_they_agree_in(board: Leaderboard) -> None:
    first, second = board.cells[:2]
    assert first.entry.block == second.entry.block
    assert first.images is second.images
    assert first.domains is second.domains


def test_intervals_hold_the_figure(board: Leaderboard) -> None:
    for row in board.rows:
        for name in ("accuracy", "gain", "views_difference", "kemeny_rank"):
            quantity = row.quantities[name]
            assert np.isnan(quantity.low) or quantity.low <= quantity.value <= quantity.high
    assert row_of(board, "bnstats").quantities["gain"].low > 0
    assert np.isnan(row_of(board, "source").quantities["gain"].low)


def test_shares_are_of_the_runs(board: Leaderboard) -> None:
    collapsed = row_of(board, "tent").quantities["collapsed"]
    assert (collapsed.value, collapsed.cells) == (0.5, 8)


def test_a_folder_that_cannot_be_read_is_a_failed_cell(entries: list[Entry], tmp_path: Path) -> None:
    lost = dataclasses.replace(entries[2], folder=tmp_path / "lost")
    board = build(*entries[:2], lost, *entries[3:6])
    assert [cell.entry.system for cell in board.failed] == ["tent"]
    assert "no run folder" in board.failed[0].error
    assert board.rows[-1].system == "tent"
    assert board.ranking is not None
    assert "tent" not in board.ranking.systems


def test_systems_over_different_samples_are_refused(answers: Answers) -> None:
    pair = answers("source", [1, 0, 1]), answers("tent", [1, 0])
    with pytest.raises(InputError, match=r"source' and '.*tent' cannot be compared: they have 3 and 2 samples"):
        build(*pair)


def test_the_first_difference_of_samples_is_named(answers: Answers) -> None:
    pair = answers("source", [1, 0, 1]), answers("tent", [1, 0, 1])
    predictions = pair[1].folder / "predictions.csv"
    predictions.write_text(predictions.read_text().replace("\n1,1,", "\n1,7,"))
    with pytest.raises(InputError, match=r"index differs \(1 and 7 in row 3 of predictions.csv\)"):
        build(*pair)


def test_entries_that_form_no_matrix_are_refused() -> None:
    entry = Entry("tent", "net", "stream", 0, None, "broke")
    source = dataclasses.replace(entry, system="source", family="source")
    wrong = {
        "no cell given": [],
        "is given twice": [entry, entry],
        "has the family 'frozen'": [dataclasses.replace(entry, family="frozen")],
        "give it one family": [entry, dataclasses.replace(entry, seed=1, family="views")],
        "all given as the frozen source model": [source, dataclasses.replace(source, system="other")],
    }
    for message, entries in wrong.items():
        with pytest.raises(InputError, match=message):
            build_leaderboard(entries, {})
