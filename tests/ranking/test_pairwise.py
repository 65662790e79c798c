import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tta.ranking import borda, kemeny, mean_score, preferences

NAN = np.nan

tables = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: arrays(float, shape, elements=st.sampled_from([NAN, 0.0, 1.0, 2.0, 3.0, 4.0]))
)
rising = st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=5, unique=True).map(sorted)


def test_mean_is_over_the_tasks_that_are_there():
    accuracy = np.array([[0.5, 0.25, NAN], [1.0, NAN, NAN]])
    np.testing.assert_array_equal(mean_score(accuracy), [0.75, 0.25, NAN])


def test_preferences_count_criteria_that_have_both():
    values = np.array([[3.0, 2.0, 2.0], [1.0, 2.0, NAN]])
    np.testing.assert_array_equal(preferences(values), [[0, 1, 1], [1, 0, 0.5], [0, 0.5, 0]])
    np.testing.assert_array_equal(preferences(values, np.array([2, 0])), [[0, 2, 2], [0, 0, 1], [0, 1, 0]])


def test_borda_of_complete_rankings_is_the_borda_count():
    values = np.array([[3, 2, 1], [3, 2, 1], [1, 3, 2]], dtype=float)
    np.testing.assert_allclose(borda(preferences(values)), np.array([2 + 2 + 0, 1 + 1 + 2, 0 + 0 + 1]) / 6)


def test_borda_with_gaps_goes_by_common_criteria():
    values = np.array([[2.0, 1.0, NAN, NAN], [NAN, 1.0, 2.0, NAN]])
    np.testing.assert_array_equal(borda(preferences(values)), [1.0, 0.0, 1.0, NAN])


@given(tables, st.data())
def test_borda_and_kemeny_are_the_same_for_any_rising_function_of_a_criterion(values, data):
    rescaled = values.copy()
    for row in rescaled:
        known = ~np.isnan(row)
        row[known] = np.array(data.draw(rising))[row[known].astype(int)]
    before, after = preferences(values), preferences(rescaled)
    np.testing.assert_array_equal(borda(before), borda(after))
    np.testing.assert_array_equal(kemeny(before), kemeny(after))


def test_leading_dimensions_are_kept():
    values = np.random.default_rng(0).random((3, 2, 5, 4))
    together = preferences(values)
    assert together.shape == (3, 2, 4, 4)
    one_by_one = [preferences(table) for table in values.reshape(6, 5, 4)]
    np.testing.assert_array_equal(together.reshape(6, 4, 4), one_by_one)
    np.testing.assert_array_equal(borda(together).reshape(6, 4), [borda(one) for one in one_by_one])
    np.testing.assert_array_equal(kemeny(together).reshape(6, 4), [kemeny(one) for one in one_by_one])
