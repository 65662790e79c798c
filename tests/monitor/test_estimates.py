"""Estimates held against the truth."""

import math

import pytest

from tta.estimates import AETTA, AverageConfidence
from tta.monitor import EstimateTrack
from tta.monitor.estimates import names_of


def test_means_are_over_the_samples_of_the_window() -> None:
    track = EstimateTrack(["a"], window=10)
    assert track.update([0.5], 4, 0.4) == {"estimate/a": 0.5, "window_estimate/a": 0.5}
    assert track.update([0.8], 6, 0.4)["window_estimate/a"] == pytest.approx(0.68)
    assert track.update([1.0], 2, 0.4)["window_estimate/a"] == pytest.approx(0.78)
    assert track.update([0.1], 25, 0.4) == {"estimate/a": 0.1, "window_estimate/a": pytest.approx(0.1)}


def test_error_and_correlation_by_hand() -> None:
    track = EstimateTrack(["up", "down", "still", "unknown"], window=4)
    assert track.summary()["up"] == {"mean": None, "windows": 0, "mean_absolute_error": None, "correlation": None}
    track.update([0.9, 0.9, 0.9, math.nan], 2, 0.0)  # the window is not full
    for up, truth in ((0.2, 0.1), (0.4, 0.3), (0.6, 0.8), (0.3, math.nan)):
        track.update([up, 1.0 - up, 0.5, math.nan], 4, truth)
    summary = track.summary()
    assert summary["up"]["windows"] == 3
    assert summary["up"]["mean_absolute_error"] == pytest.approx((0.1 + 0.1 + 0.2) / 3)
    assert summary["up"]["correlation"] == pytest.approx(0.970725, abs=1e-6)
    assert summary["down"]["correlation"] == pytest.approx(-0.970725, abs=1e-6)
    assert summary["up"]["mean"] == pytest.approx((2 * 0.9 + 4 * (0.2 + 0.4 + 0.6 + 0.3)) / 18)
    assert summary["still"]["correlation"] is None
    assert summary["unknown"] == {"mean": None, "windows": 0, "mean_absolute_error": None, "correlation": None}


def test_names_that_stand_twice_are_numbered() -> None:
    assert names_of([AETTA(), AverageConfidence(), AETTA(seed=1)]) == ["aetta", "average_confidence", "aetta_2"]
