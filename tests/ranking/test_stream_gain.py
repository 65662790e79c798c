import numpy as np
import pytest
from scipy import stats

from tta.errors import InputError
from tta.ranking import adaptation_regret, gain_falls

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


def falls(correct, source, domains=None):
    return gain_falls(correct, source, np.zeros(len(correct), dtype=int) if domains is None else domains)


def test_a_gain_falls_and_a_harder_stream_is_none():
    random = np.random.default_rng(0)
    assert falls(stream(random, 3000, (0.8, 0.3)), stream(random, 3000, (0.5, 0.5))) is True
    assert falls(stream(random, 3000, (0.8, 0.3)), stream(random, 3000, (0.7, 0.2))) is False
    assert falls(stream(random, 3000, (0.5, 0.7)), stream(random, 3000, (0.5, 0.5))) is False


def test_domains_that_help_less_are_no_fall():
    """The domain in which adapting gains 0.4 becomes rarer, and that in which it gains nothing more frequent."""
    random = np.random.default_rng(0)
    domains = (random.random(3000) < np.linspace(0.1, 0.9, 3000)).astype(int)
    correct = (random.random(3000) < np.where(domains == 0, 0.8, 0.4)).astype(float)
    source = stream(random, 3000, (0.4, 0.4))
    assert falls(correct, source) is True
    assert falls(correct, source, domains) is False
    fallen = np.where(np.arange(3000) < 1500, correct, source)
    assert falls(fallen, source, domains) is True


def test_domains_that_do_not_come_again_leave_it_open():
    random = np.random.default_rng(0)
    correct, source = stream(random, 300, (0.9, 0.3)), stream(random, 300, (0.5, 0.5))
    assert falls(correct, source, np.arange(300) // 100) is None
    assert falls(correct, source, np.arange(300) // 100 % 2) is True


def test_of_a_single_domain_it_is_the_test_of_welch():
    random = np.random.default_rng(3)
    for _ in range(20):
        correct, source = stream(random, 90, (0.8, 0.5)), stream(random, 90, (0.5, 0.5))
        gain = correct - source
        p = stats.ttest_ind(gain[:30], gain[60:], equal_var=False, alternative="greater").pvalue
        assert falls(correct, source) is bool(p < 0.01)


def test_falls_are_found_by_chance_as_often_as_the_level_says():
    random = np.random.default_rng(0)
    domains = np.arange(300) % 3
    found = sum(falls(stream(random, 300, (0.6, 0.6)), stream(random, 300, (0.5, 0.5)), domains) for _ in range(2000))
    assert stats.binom.ppf(0.001, 2000, 0.01) <= found <= stats.binom.ppf(0.999, 2000, 0.01)


def test_edges():
    same = np.array([1.0, 0.0] * 10)
    assert falls(same, same) is False
    assert falls(np.ones(0), np.ones(0)) is None
    assert falls(np.full(30, NAN), np.ones(30)) is None
    assert falls(np.ones(5), np.zeros(5)) is None
    fallen = np.repeat([1.0, 1.0, 0.0], 10)
    assert falls(fallen, 1 - fallen) is True
    assert falls(np.insert(fallen, 0, [NAN] * 20), np.insert(1 - fallen, 0, [0.0] * 20)) is True
    with pytest.raises(InputError, match=r"correct \(3,\), source \(3,\) and domains \(2,\)"):
        gain_falls(np.ones(3), np.ones(3), np.zeros(2, dtype=int))
