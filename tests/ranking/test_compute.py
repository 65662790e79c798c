import math

import numpy as np
import pytest

from tta.errors import InputError
from tta.ranking import anytime_area, arise, pareto_set

NAN = np.nan


def test_pareto_set():
    cost = np.array([1.0, 2.0, 2.0, 3.0, 3.0, NAN, 4.0, 1.0])
    accuracy = np.array([0.5, 0.7, 0.6, 0.7, 0.8, 0.9, NAN, 0.5])
    assert pareto_set(cost, accuracy).tolist() == [True, True, False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("cost", "accuracy", "area"),
    [
        ([1.0], [0.5], 0.5),
        ([0.1], [0.5], 0.5),
        ([10.0], [0.5], 0.25),
        ([1.0, 10.0], [0.5, 0.7], 0.6),
        ([10.0, 1.0], [0.7, 0.5], 0.6),
        ([1.0, 10.0], [0.5, 0.3], 0.5),
        ([1.0, 10.0, 10.0], [0.5, 0.6, 0.7], 0.6),
        ([1.0, 200.0], [0.5, 1.0], 0.5),
        ([1.0, NAN, 2.0], [0.5, 1.0, NAN], 0.5),
        ([], [], 0.0),
    ],
)
def test_anytime_area_between_1_and_100(cost, accuracy, area):
    assert anytime_area(np.array(cost), np.array(accuracy), 1.0, 100.0) == pytest.approx(area, abs=1e-12)


def test_anytime_area_against_budgets_drawn_at_random():
    random = np.random.default_rng(0)
    cost, accuracy = np.exp(random.normal(1, 1, 6)), random.random(6)
    budgets = np.exp(random.uniform(math.log(0.5), math.log(20), 200_000))
    best = np.where(cost[:, None] <= budgets, accuracy[:, None], 0).max(axis=0)
    assert anytime_area(cost, accuracy, 0.5, 20) == pytest.approx(best.mean(), abs=4 * best.std() / 200_000**0.5)


@pytest.mark.parametrize(
    ("accuracy", "cost", "value"),
    [
        ([0, 1], [1, 2], 0.5),
        ([1, 0], [1, 2], -2.0),
        ([0, 1, 0], [1, 2, 4], -1.5),
        ([0.5, 0.5], [1, 2], 0.0),
        ([[0, 1], [1, 0]], [1, 2], -0.75),
        ([[0, 1, NAN], [1, 0, 1]], [1, 2], -0.75),
        ([0.5], [1], 0.0),
    ],
)
def test_arise(accuracy, cost, value):
    assert arise(np.array(accuracy, dtype=float), np.array(cost, dtype=float)) == pytest.approx(value, abs=1e-12)


def test_arise_of_no_known_sample():
    assert math.isnan(arise(np.array([[NAN], [1.0]]), np.array([1.0, 2.0])))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pareto_set(np.ones(2), np.ones(3)), r"cost \(2,\) and accuracy \(3,\)"),
        (lambda: anytime_area(np.ones(2), np.ones(3), 1, 2), r"cost \(2,\) and accuracy \(3,\)"),
        (lambda: anytime_area(np.ones(2), np.ones(2), 2, 2), "budgets 2 to 2"),
        (lambda: anytime_area(np.ones(2), np.ones(2), 0, 2), "budgets 0 to 2"),
        (lambda: arise(np.ones((3, 5)), np.ones(2)), r"accuracy \(3, 5\) and cost \(2,\)"),
        (lambda: arise(np.ones(2), np.array([2.0, 2.0])), r"cost \[2.0, 2.0\]: the levels must be above 0 and rise"),
        (lambda: arise(np.ones(2), np.array([0.0, 2.0])), r"cost \[0.0, 2.0\]"),
    ],
)
def test_names_what_does_not_fit(call, message):
    with pytest.raises(InputError, match=message):
        call()
