import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.ranking.simulated import block, rasch
from tta.ranking import Experiment
from tta.ranking.paired_tests import compare_neighbours, holm, sign_flip_p

NAN = np.nan


def compared(experiment, order):
    """Neighbours in an order, without preferences or resamples."""
    systems = len(order)
    return compare_neighbours(experiment, order, np.zeros((systems, systems)), np.zeros((1, systems - 1)))


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=9))
def test_sign_flips_are_those_of_scipy(differences):
    differences = np.array(differences)
    expected = stats.permutation_test(
        (differences, np.zeros_like(differences)),
        lambda one, other, axis: (one - other).sum(axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert sign_flip_p(differences) == pytest.approx(expected.pvalue, abs=1e-12)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (7, 7), (9, 2), (60, 30), (5000, 5300)])
def test_differences_of_one_are_a_binomial_test(won, lost):
    differences = np.array([1] * won + [-1] * lost + [0] * 5)
    expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert sign_flip_p(differences) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("differences", [np.ones(60), np.full(100_000, 3), np.arange(200)])
def test_a_sure_difference_is_not_below_what_is_resolved(differences):
    assert sign_flip_p(differences.astype(int)) == 1e-12


def test_holm():
    np.testing.assert_allclose(holm(np.array([0.04, NAN, 0.01, 0.03])), [0.06, NAN, 0.03, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])
    assert len(holm(np.array([]))) == 0


def test_an_image_that_comes_again_is_no_new_evidence():
    once = np.array([[1] * 8 + [0] * 2, [0] * 8 + [1] * 2])
    twice = Experiment(("x", "y"), (block(once), block(once, seed=1)), {})
    again = Experiment(("x", "y"), (block(np.hstack([once, once]), images=[*range(10), *range(10)]),), {})
    fresh = Experiment(("x", "y"), (block(once), block(once, seed=1, images=range(10, 20))), {})
    expected = stats.binomtest(8, 10).pvalue
    for experiment in (twice, again):
        (comparison,) = compared(experiment, [0, 1])
        assert (comparison.better, comparison.worse) == ("x", "y")
        assert comparison.difference == pytest.approx(0.6)
        assert comparison.p == pytest.approx(expected, abs=1e-12)
    assert compared(fresh, [0, 1])[0].p == pytest.approx(stats.binomtest(16, 20).pvalue, abs=1e-12)


def test_neighbours_are_corrected_together_and_unknown_samples_left_out():
    correct = [[1] * 9 + [0, NAN], [0] * 9 + [1, 1], [NAN] * 11]
    extra = block([[NAN], [NAN], [1]], "other")
    first, second = compared(Experiment(("x", "y", "z"), (block(correct), extra), {}), [0, 1, 2])
    assert first.p == first.adjusted_p == pytest.approx(stats.binomtest(9, 10).pvalue, abs=1e-12)
    assert np.isnan([second.difference, second.p, second.adjusted_p]).all()


def test_alike_systems_differ_as_often_as_the_level_says():
    random = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        difficulties = random.normal(0, 1, 60)
        blocks = tuple(block(rasch(random, [0, 0], difficulties), seed=seed) for seed in range(3))
        found += compared(Experiment(("x", "y"), blocks, {}), [0, 1])[0].p < 0.1
    assert stats.binom.ppf(0.001, 400, 0.05) <= found <= stats.binom.ppf(0.999, 400, 0.1)
