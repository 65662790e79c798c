"""SAR's recovery for any method."""

import math

import pytest
import torch

from tta.adapters import ResetScope
from tta.errors import InputError
from tta.functional import softmax_entropy
from tta.resets import EntropyAverage

LN3 = math.log(3)


def logits(entropy, size=2):
    """Rows of three classes with an entropy in nats, by bisection on the first logit."""
    low, high = torch.zeros(()), torch.tensor(30.0)
    for _ in range(60):
        middle = (low + high) / 2
        row = torch.stack([middle, torch.zeros(()), torch.zeros(())])[None]
        low, high = (middle, high) if float(softmax_entropy(row)) > entropy else (low, middle)
    return row.repeat(size, 1)


def test_reset_when_the_average_falls_below(scores):
    online = scores(EntropyAverage(threshold=0.2, margin=0.4))
    averages, resets = [], []
    for entropy in (0.4, 0.3, 0.1, 0.01, *[0.0] * 6):
        online(logits(entropy))
        averages.append(float(online.last.scalars["reliable_entropy_average"]))
        resets.append(online.resets)
    expected = [0.4]
    for entropy in (0.3, 0.1, 0.01, *[0.0] * 5):
        expected.append(0.9 * expected[-1] + 0.1 * entropy)
    assert expected[8] < 0.2 < expected[7], "the rule is met at the ninth batch"
    assert averages[:9] == pytest.approx(expected, abs=1e-5)
    assert averages[9] == pytest.approx(0.0, abs=1e-5), "the average starts anew"
    assert resets == [0] * 8 + [1, 2]


def test_unreliable_samples_take_no_part(scores):
    online = scores(EntropyAverage(threshold=0.1, margin=0.4))
    online(torch.cat([logits(0.2, size=3), logits(0.9 * LN3, size=5)]))
    assert float(online.protocol.average) == pytest.approx(0.2, abs=1e-5)
    for x in (torch.zeros(4, 3), logits(0.41 * LN3, size=1)):
        online(x)
        assert float(online.protocol.average) == pytest.approx(0.2, abs=1e-5)
    spoilt = logits(0.3, size=2)
    spoilt[0] = torch.tensor([torch.nan, 0.0, 50.0])
    online(spoilt)
    assert float(online.protocol.average) == pytest.approx(0.21, abs=1e-5)


def test_nothing_reliable_yet_decides_nothing(scores):
    online = scores(EntropyAverage(threshold=5.0))
    online(torch.zeros(4, 3))
    assert online.protocol.average.isnan()
    assert online.resets == 0


def test_a_reset_of_the_method_clears_the_average_too(walk):
    online = walk(EntropyAverage(threshold=1e-9, margin=1.1), asks=[None, ResetScope.WEIGHTS])
    online(torch.ones(2, 2))
    assert not online.protocol.average.isnan()
    online(torch.ones(2, 2))
    assert online.protocol.average.isnan()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 0.0}, "threshold=0.0, margin=0.4: need both > 0"),
        ({"margin": -1.0}, "margin=-1.0"),
        ({"momentum": 1.0}, "momentum=1.0: need 0 <= momentum < 1"),
    ],
)
def test_values_out_of_range(arguments, message):
    with pytest.raises(InputError, match=message):
        EntropyAverage(**arguments)
