"""The verdict, word for word."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tta.report.run import Run, read_run
from tta.report.verdict import points, write_verdict

CALM = {
    "collapsed": False,
    "collapsed_at": None,
    "collapsed_share": 0.0,
    "below_source": False,
    "below_source_at": None,
    "below_source_share": 0.0,
}
FALLEN = CALM | {"collapsed": True, "collapsed_at": 640, "collapsed_share": 0.3}
BELOW = CALM | {"below_source": True, "below_source_at": 512, "below_source_share": 0.2}
UNKNOWN = dict.fromkeys(CALM)
LABELS = {"accuracy": 0.714, "accuracy_paired": 0.714, "source_accuracy": 0.632}
NOTHING = dict.fromkeys(LABELS)

CASES: list[tuple[dict[str, Any], dict[str, float], str, str]] = [
    (
        {**LABELS, "collapse": CALM, "resets": 2},
        {},
        "SAR gained 8.2 points over the frozen source model (71.4 % against 63.2 %), with 2 resets; no collapse.",
        "good",
    ),
    (
        {**LABELS, "collapse": CALM, "resets": 1},
        {},
        "SAR gained 8.2 points over the frozen source model (71.4 % against 63.2 %), with 1 reset; no collapse.",
        "good",
    ),
    (
        {**LABELS, "accuracy_paired": 0.7, "collapse": CALM},
        {},
        "SAR gained 6.8 points over the frozen source model (70.0 % against 63.2 %); no collapse.",
        "good",
    ),
    (
        {"accuracy": 0.62, "accuracy_paired": None, "source_accuracy": 0.632, "collapse": CALM},
        {},
        "SAR lost 1.2 points against the frozen source model (62.0 % against 63.2 %); no collapse.",
        "warning",
    ),
    (
        {"accuracy": 0.632, "accuracy_paired": 0.632, "source_accuracy": 0.632, "collapse": CALM},
        {},
        "SAR matched the frozen source model (63.2 % against 63.2 %); no collapse.",
        "neutral",
    ),
    (
        {**LABELS, "accuracy_paired": 0.312, "collapse": FALLEN | {"below_source": True}},
        {"collapsed": 1},
        "SAR collapsed after 640 samples (30 % of the stream): 31.2 % accuracy against 63.2 % for the frozen source "
        "model.",
        "bad",
    ),
    (
        {**LABELS, "collapse": FALLEN, "resets": 3},
        {"collapsed": 0},
        "SAR collapsed after 640 samples and recovered (30 % of the stream): 71.4 % accuracy against 63.2 % for the "
        "frozen source model, with 3 resets.",
        "bad",
    ),
    (
        {**NOTHING, "collapse": FALLEN | {"collapsed_share": None}},
        {"collapsed": 1},
        "SAR collapsed after 640 samples: its predictions concentrate on few classes while the frozen source model's "
        "do not.",
        "bad",
    ),
    (
        {**LABELS, "accuracy_paired": 0.58, "collapse": BELOW},
        {"below_source": 1},
        "SAR fell below the frozen source model from sample 512 on (58.0 % against 63.2 %); no collapse.",
        "bad",
    ),
    (
        {**LABELS, "accuracy_paired": 0.58, "collapse": BELOW},
        {"below_source": 0},
        "SAR fell below the frozen source model over 20 % of the stream, first at sample 512 (58.0 % against 63.2 %); "
        "no collapse.",
        "bad",
    ),
    (
        {**LABELS, "collapse": BELOW},
        {"below_source": 0},
        "SAR gained 8.2 points over the frozen source model (71.4 % against 63.2 %) but was below it over 20 % of the "
        "stream, first at sample 512; no collapse.",
        "warning",
    ),
    (
        {"accuracy": 0.714, "accuracy_paired": None, "source_accuracy": None, "collapse": UNKNOWN},
        {},
        "SAR reached 71.4 % on 2,560 samples, with no frozen source model to compare with; collapse was not measured.",
        "neutral",
    ),
    (
        {**NOTHING, "collapse": CALM, "resets": 1},
        {},
        "SAR saw 2,560 samples without labels, so its accuracy is unknown, with 1 reset; no collapse.",
        "neutral",
    ),
]


@pytest.fixture(scope="module")
def plain_run(folders: dict[str, Path]) -> Run:
    return read_run(folders["healthy"])


@pytest.mark.parametrize(("summary", "last", "sentence", "tone"), CASES)
def test_sentence(plain_run: Run, summary: dict[str, Any], last: dict[str, float], sentence: str, tone: str) -> None:
    metrics = plain_run.metrics | {name: np.full(len(plain_run.domains), value) for name, value in last.items()}
    verdict = write_verdict(replace(plain_run, summary=plain_run.summary | {"resets": 0} | summary, metrics=metrics))
    assert verdict.sentence == sentence
    assert verdict.tone == tone


def test_sentence_of_an_empty_summary(plain_run: Run) -> None:
    assert write_verdict(replace(plain_run, summary={})).sentence == (
        "unknown saw unknown samples without labels, so its accuracy is unknown; collapse was not measured."
    )


@pytest.mark.parametrize(
    ("difference", "text"),
    [(0.082, "+8.2"), (-0.05, "\N{MINUS SIGN}5.0"), (-0.0001, "0.0"), (0.0001, "0.0"), (None, "unknown")],
)
def test_points_are_signed(difference: float | None, text: str) -> None:
    assert points(difference) == text
