import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from tests.ranking.simulated import informative_gaps, rasch
from tta.ranking import mean_score, plackett_luce, wins

NAN = np.nan


def test_wins_are_samples_right_against_wrong():
    correct = np.array([[1, 1, 0, NAN, 1], [0, 1, 1, 1, 0], [NAN, NAN, NAN, NAN, NAN]])
    np.testing.assert_array_equal(wins(correct), [[0, 2, NAN], [1, 0, NAN], [NAN, NAN, 0]])


def test_strengths_of_two_systems_are_the_log_odds_of_their_wins():
    first, second = plackett_luce(np.array([[0.0, 30.0], [10.0, 0.0]]))
    assert first - second == pytest.approx(math.log(30.5 / 10.5), abs=1e-6)
    assert first + second == pytest.approx(0, abs=1e-9)


def test_one_that_never_loses_stays_finite_and_first():
    strengths = plackett_luce(np.array([[0.0, 50.0, 50.0], [0.0, 0.0, 5.0], [0.0, 5.0, 0.0]]))
    assert np.isfinite(strengths).all()
    assert strengths.argmax() == 0
    assert strengths[1] == pytest.approx(strengths[2], abs=1e-9)


def test_only_the_largest_linked_group_has_strengths():
    correct = np.full((5, 6), NAN)
    correct[[0, 1], :2] = [[1, 0], [0, 1]]
    correct[[2, 3], 2:4] = [[1, 1], [0, 1]]
    correct[[3, 4], 4:] = [[1, 1], [0, 1]]
    strengths = plackett_luce(wins(correct))
    assert np.isnan(strengths).tolist() == [True, True, False, False, False]
    assert strengths[2] > strengths[3] > strengths[4]
    assert np.isnan(plackett_luce(np.array([[0.0, NAN], [NAN, 0.0]]))).all()
    assert np.isnan(plackett_luce(np.zeros((1, 1)))).all()


def test_strengths_of_a_rasch_model_are_found_whatever_the_difficulty():
    random = np.random.default_rng(0)
    strengths = np.array([-1.0, 0.0, 1.0])
    for difficulty in (-1.5, 1.5):
        correct = rasch(random, strengths, random.normal(difficulty, 1, 40_000))
        np.testing.assert_allclose(plackett_luce(wins(correct)), strengths, atol=0.06)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("missing", "wanted"), [(0.8, 0.9), (0.95, 0.65)])
def test_planted_order_is_found_although_gaps_depend_on_difficulty(seed, missing, wanted):
    strengths, correct = informative_gaps(seed, missing)
    assert np.isnan(correct).mean() == pytest.approx(missing, abs=1e-9)
    found = plackett_luce(wins(correct.reshape(len(correct), -1)))
    assert kendalltau(strengths, found).statistic >= wanted


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_is_misled_by_the_same_gaps(seed):
    strengths, correct = informative_gaps(seed, 0.8)
    mean = mean_score(correct.mean(axis=2).T)
    assert kendalltau(strengths, mean).statistic <= 0.5
