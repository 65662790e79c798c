import numpy as np
import pytest
from scipy import stats

from tta.errors import InputError
from tta.ranking import adaptation_regret, negative_progress

NAN = np.nan


def test_regret_is_against_the_best_frozen_model_so_far():
    correct = np.array([0.0, 1.0, 0.0, 1.0, 1.0])
    frozen = np.array([[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0, 0.0]])
    assert adaptation_regret(correct, frozen).tolist() == [1, 0, 1, 1, 0]
    assert adaptation_regret(correct, frozen[:1]).tolist() == [1, 0, 0, -1, -2]


def test_regret_skips_samples_and_models_that_are_not_known():
    correct = np.array([0.0, NAN, 0.0])
    frozen = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, NAN], [NAN, NAN, NAN]])
    assert adaptation_regret(correct, frozen).tolist() == [1, 1, 1]


def test_regret_needs_a_frozen_model():
    for frozen in (np.empty((0, 3)), np.full((2, 3), NAN)):
        with pytest.raises(InputError, match="no sample is known of any frozen model"):
            adaptation_regret(np.ones(3), frozen)
    with pytest.raises(InputError, match=r"correct \(3,\) and frozen \(1, 2\)"):
        adaptation_regret(np.ones(3), np.ones((1, 2)))


def stream(random, length, accuracy):
    """Right or wrong with an accuracy that changes linearly from the first to the last sample."""
    return (random.random(length) < np.linspace(*accuracy, length)).astype(float)


def test_a_falling_gain_raises_the_alarm_and_a_harder_stream_does_not():
    random = np.random.default_rng(0)
    assert negative_progress(stream(random, 3000, (0.8, 0.3)), stream(random, 3000, (0.5, 0.5)))
    assert not negative_progress(stream(random, 3000, (0.8, 0.3)), stream(random, 3000, (0.7, 0.2)))
    assert not negative_progress(stream(random, 3000, (0.5, 0.7)), stream(random, 3000, (0.5, 0.5)))


def test_false_alarms_are_as_rare_as_the_level_says():
    random = np.random.default_rng(0)
    alarms = sum(
        negative_progress(stream(random, 300, (0.6, 0.6)), stream(random, 300, (0.5, 0.5))) for _ in range(600)
    )
    assert alarms <= stats.binom.ppf(0.999, 600, 0.01)


def test_edges():
    same = np.array([1.0, 0.0] * 10)
    assert not negative_progress(same, same)
    assert not negative_progress(np.ones(0), np.ones(0))
    assert not negative_progress(np.full(30, NAN), np.ones(30))
    fallen = np.repeat([1.0, 1.0, 0.0], 10)
    assert negative_progress(fallen, 1 - fallen)
    assert negative_progress(np.insert(fallen, 0, [NAN] * 20), np.insert(1 - fallen, 0, [0.0] * 20))
    with pytest.raises(InputError, match=r"correct \(3,\) and source \(2,\)"):
        negative_progress(np.ones(3), np.ones(2))
