"""AETTA's rule."""

import pytest
import torch
from torch import nn

import tta
from tta.adapters import ResetScope
from tta.errors import InputError
from tta.estimates import AccuracyEstimate, AverageConfidence
from tta.resets import AccuracyEstimateReset


class Told(AccuracyEstimate):
    """Says what it is told, batch by batch, and counts how often it starts anew."""

    name = "told"

    def __init__(self, values=()):
        super().__init__()
        self.values = list(values)
        self.restarts = 0
        self.sizes = []

    def scores(self, model, x, logits):
        self.sizes.append(len(x))
        return torch.full((len(x),), self.values.pop(0))

    def reset(self):
        self.restarts += 1


def resets(scores, values, **arguments):
    """Batches after which the model was reset, counted from one."""
    online = scores(AccuracyEstimateReset(Told(values), **arguments))
    counts = [0]
    for _ in values:
        online(torch.rand(2, 3))
        counts.append(online.resets)
    return [number for number in range(1, len(counts)) if counts[number] > counts[number - 1]]


def test_reset_below_the_floor(scores):
    assert resets(scores, [0.21, 0.19, 0.5, 0.2, 0.1, 0.1]) == [2, 5, 6]
    assert resets(scores, [0.01, 0.01], floor=0.0) == []
    assert resets(scores, [0.4, 0.6], floor=0.5) == [1]


def test_reset_when_the_mean_of_five_falls(scores):
    """0.5 five times, then five whose mean is 0.48 or a little less; then the history is empty."""
    steady = [0.5] * 5
    assert resets(scores, [*steady, *[0.481] * 5]) == []
    assert resets(scores, [*steady, *[0.479] * 5]) == [10]
    assert resets(scores, [*steady, 0.3, 0.5, 0.5, 0.5]) == [], "not before there are ten"
    assert resets(scores, [*steady, 0.39, 0.5, 0.5, 0.5, 0.5, 0.5]) == [10]
    assert resets(scores, [*steady, *[0.4] * 15]) == [10], "another fall needs another ten"
    assert resets(scores, [0.9, 0.1, *steady, *[0.4] * 5]) == [2, 12], "a reset forgets what was before"


def test_window_and_drop(scores):
    assert resets(scores, [0.9, 0.8, 0.7], window=1, drop=0.15) == []
    assert resets(scores, [0.9, 0.7, 0.6, 0.4], window=1, drop=0.15) == [2, 4]


def test_unknown_estimates_decide_nothing(scores):
    steady = [0.5, torch.nan] * 5
    assert resets(scores, [*steady, *[0.4] * 5]) == [15]


def test_the_estimate_starts_anew_with_every_reset(scores, walk):
    online = scores(AccuracyEstimateReset(Told([0.5, 0.1])))
    before = online.protocol.estimate.restarts
    online(torch.rand(2, 3))
    assert online.protocol.estimate.restarts == before
    online(torch.rand(2, 3))
    assert online.protocol.estimate.restarts == before + 1
    online = walk(AccuracyEstimateReset(Told([0.5])), asks=[ResetScope.ALL])
    before = online.protocol.estimate.restarts
    online(torch.ones(2, 2))
    assert online.protocol.estimate.restarts == before + 1


def test_the_estimate_is_of_the_model_before_its_step(walk):
    """At zero weights all classes are equally likely; a step later they are too, but not after an uneven one."""
    uneven = torch.tensor([[9.0, 9.0], [0.0, 0.0], [0.0, 0.0]])
    online = walk(AccuracyEstimateReset(AverageConfidence()), gradients=[uneven, uneven])
    online(torch.ones(2, 2))
    assert float(online.last.scalars["protocol_estimate"]) == pytest.approx(1 / 3)
    online(-torch.ones(2, 2))
    assert float(online.last.scalars["protocol_estimate"]) == pytest.approx(1.0, abs=1e-5)


def test_spoilt_samples_take_no_part(scores):
    online = scores(AccuracyEstimateReset(Told([0.5])))
    x = torch.rand(4, 3)
    x[1, 2] = torch.nan
    online(x)
    assert online.protocol.estimate.sizes == [3]
    online(torch.full((2, 3), torch.nan))
    assert online.protocol.estimate.sizes == [3]
    assert online.protocol.estimated.isnan()


def test_a_batch_too_small_for_batch_statistics_decides_nothing():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    online = tta.online(model, "tent", resets=AccuracyEstimateReset(Told([0.5, 0.5])))
    x = torch.rand(4, 3)
    online(x)
    x[1:] = torch.nan
    online(x)
    assert online.protocol.estimated.isnan()
    assert online.protocol.estimate.sizes == [4]


@pytest.mark.parametrize("arguments", [{"floor": -0.1}, {"floor": 1.1}, {"drop": -1.0}, {"window": 0}])
def test_values_out_of_range(arguments):
    with pytest.raises(InputError, match="need 0 <= floor <= 1, drop >= 0 and window >= 1"):
        AccuracyEstimateReset(AverageConfidence(), **arguments)


def test_label():
    assert AccuracyEstimateReset(AverageConfidence(), floor=0.3).label == (
        "AccuracyEstimateReset(estimate=AverageConfidence, floor=0.3)"
    )
