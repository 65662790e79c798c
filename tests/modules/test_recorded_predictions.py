"""Predictions that an earlier run has recorded."""

import re
from pathlib import Path

import pytest
import torch

from tta.errors import InputError
from tta.modules.recorded_predictions import RecordedPredictions

HEADER = "position,index,domain,label,prediction,confidence,source_prediction,finite\n"
ROWS = ["0,7,fog,1,3,0.5,,1\n", "1,9,fog,1,0,0.6,,1\n", "2,7,snow,1,5,0.7,,0\n"]
DOMAINS = ["snow", "fog"]


def of(indices: list[int], domains: list[int]) -> dict[str, torch.Tensor]:
    return {"index": torch.tensor(indices), "domain": torch.tensor(domains)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "predictions.csv"
    path.write_text(HEADER + "".join(ROWS))
    return path


def test_predictions_by_position(path: Path) -> None:
    recorded = RecordedPredictions(path)
    assert len(recorded) == 3
    assert recorded.of(of([7, 9], [1, 1]), 0, DOMAINS).tolist() == [3, 0]
    last = recorded.of(of([7], [0]), 2, DOMAINS)
    assert (last.tolist(), last.dtype) == ([5], torch.int64)


@pytest.mark.parametrize(
    ("index", "domain", "told"),
    [
        (8, 1, "has index 9 of domain 'fog' at position 1, where the stream has index 8 of domain 'fog'"),
        (9, 0, "has index 9 of domain 'fog' at position 1, where the stream has index 9 of domain 'snow'"),
    ],
)
def test_another_stream_is_told_with_both_values(path: Path, index: int, domain: int, told: str) -> None:
    with pytest.raises(InputError, match=f"{re.escape(str(path))} {told}"):
        RecordedPredictions(path).of(of([7, index], [1, domain]), 0, DOMAINS)


def test_a_stream_that_is_longer_is_told(path: Path) -> None:
    with pytest.raises(InputError, match=r"has 3 samples and the stream goes on at position 3: give predictions\.csv"):
        RecordedPredictions(path).of(of([7, 4], [0, 0]), 2, DOMAINS)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot read"),
        ("", "has no column 'position'"),
        ("step,samples\n0,16\n", "has no column 'position'"),
        (HEADER + ROWS[0] + "1,9,fog,1,0", "line 3, is torn"),
        (HEADER + ROWS[0] + ROWS[2], "line 3, is torn or in another place"),
        (HEADER + ROWS[0] + "1,9,fog,1,,0.6,,1\n", "line 3, is torn"),
        (HEADER + ROWS[0] + "1,x,fog,1,0,0.6,,1\n", "line 3, is torn"),
        (b"\xff\xfe\x00", "cannot read"),
    ],
    ids=["missing", "empty", "another file", "torn", "misplaced", "no prediction", "no number", "binary"],
)
def test_what_is_no_record_is_told_in_one_line(path: Path, text: str | bytes | None, told: str) -> None:
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=told) as caught:
        RecordedPredictions(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
