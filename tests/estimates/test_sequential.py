import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tta
from tta.estimates.sequential import BETS, SequentialTest


def fed(level: float, tolerance: float, *looks: list[float]) -> SequentialTest:
    test = SequentialTest(level, tolerance)
    for look in looks:
        test.update(torch.tensor(look))
    return test


def test_the_wealth_of_two_looks_is_that_of_the_formula():
    test = fed(0.01, 0.1, [-1.0, 0.0], [-1.0])
    expected = 0.0
    for bet in BETS:
        rate = bet / 1.1
        first = (1 + rate * 0.9) * (1 - rate * 0.1)
        second = 1 + rate * 0.9
        # Starts before the first look and before the second, of weights 1/2 and 1/6.
        expected += (first * second / 2 + second / 6) / len(BETS)
    assert test.evidence == pytest.approx(expected, rel=1e-12)
    assert test.mean == pytest.approx(-2 / 3)


def differences(chance_of_minus: float, chance_of_plus: float, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    draws = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return (draws > 1 - chance_of_plus).float() - (draws < chance_of_minus).float()


@pytest.mark.parametrize("look", [1, 16])
def test_false_alarms_are_no_more_frequent_than_the_level(look):
    """At the edge of the null hypothesis: the mean is exactly minus the tolerance."""
    streams = differences(0.2, 0.15, (400, 320), seed=0)
    alarms = 0
    for stream in streams:
        test = SequentialTest(level=0.2, tolerance=0.05)
        for part in stream.split(look):
            test.update(part)
            if test.alarm:
                alarms += 1
                break
    assert alarms / 400 <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / 400)


def test_harm_is_found_soon_and_also_after_a_long_healthy_past():
    for healthy in (0, 4000):
        test = fed(0.01, 0.01, *differences(0.1, 0.3, (healthy // 32, 32), seed=1).tolist())
        assert not test.alarm
        looks = 0
        while not test.alarm:
            test.update(differences(0.4, 0.1, (32,), seed=100 + looks))
            looks += 1
        assert looks * 32 <= 224


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.floats(0.001, 0.5), st.floats(0.0, 0.5))
def test_evidence_is_finite_and_never_negative(values, level, tolerance):
    test = fed(level, tolerance, *[[value] for value in values])
    assert math.isfinite(test.evidence)
    assert test.evidence >= 0.0


def test_a_stream_that_is_all_harm_stays_finite():
    test = SequentialTest()
    for _ in range(200):
        test.update(torch.full((64,), -1.0))
    assert test.alarm
    assert math.isfinite(test.evidence)


def test_no_sample_changes_nothing_and_a_reset_everything():
    test = fed(0.01, 0.01, [-1.0, 1.0])
    before = {name: buffer.clone() for name, buffer in test.named_buffers()}
    test.update(torch.empty(0))
    assert all(torch.equal(buffer, before[name]) for name, buffer in test.named_buffers())
    test.reset()
    fresh = dict(SequentialTest(0.01, 0.01).named_buffers())
    assert all(torch.equal(buffer, fresh[name]) for name, buffer in test.named_buffers())


def test_bad_input_is_named():
    for level, tolerance in ((0.0, 0.1), (1.0, 0.1), (0.1, -0.1), (0.1, 1.0)):
        with pytest.raises(tta.InputError, match=f"level={level}, tolerance={tolerance}: need"):
            SequentialTest(level, tolerance)
    with pytest.raises(tta.InputError, match=r"differences from -2 to 0\.5"):
        fed(0.1, 0.1, [-2.0, 0.5])
    with pytest.raises(tta.InputError, match="differences from"):
        fed(0.1, 0.1, [math.nan])
