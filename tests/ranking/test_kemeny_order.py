from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tta.ranking import borda, kemeny, mean_score, preferences
from tta.ranking.kemeny_order import exact_order, kemeny_cost, local_search_order

NAN = np.nan
A, B, C = range(3)


def votes(*orders):
    """Criteria under which systems rank in the given orders, best first."""
    return np.array([[-order.index(system) for system in sorted(order)] for order in orders], dtype=float)


def test_condorcet_winner_comes_first_where_the_mean_and_borda_prefer_another():
    accuracy = np.array([[0.60, 0.50, 0.40], [0.60, 0.50, 0.40], [0.60, 0.50, 0.40], [0.1, 0.9, 0.8], [0.1, 0.9, 0.8]])
    assert mean_score(accuracy).argmax() == B
    assert borda(preferences(accuracy)).argmax() == B
    assert kemeny(preferences(accuracy)).tolist() == [A, B, C]


def test_a_cycle_is_cut_where_it_contradicts_fewest():
    cycle = votes([A, B, C], [B, C, A], [C, A, B], [B, C, A], [A, B, C], [B, C, A])
    assert kemeny(preferences(cycle)).tolist() == [B, C, A]


def test_ties_go_by_system_order():
    assert kemeny(preferences(votes([A, B, C], [B, C, A], [C, A, B]))).tolist() == [A, B, C]
    assert kemeny(np.zeros((10, 10))).tolist() == list(range(10))


@pytest.mark.parametrize("systems", [4, 9])
def test_systems_compared_with_none_come_last(systems):
    values = np.vstack([np.arange(systems), np.arange(systems)]).astype(float)
    values[:, [0, systems - 1]] = NAN
    assert kemeny(preferences(values)).tolist() == [*range(systems - 2, 0, -1), 0, systems - 1]


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 6)).flatmap(
        lambda shape: arrays(float, shape, elements=st.sampled_from([NAN, 0.0, 1.0, 2.0, 3.0]))
    )
)
def test_exact_order_is_the_first_of_the_best_permutations(values):
    preferred = preferences(values)
    every = [np.array(order) for order in permutations(range(values.shape[1]))]
    best = min(every, key=lambda order: kemeny_cost(preferred, order))  # the first of several, in their order
    assert exact_order(preferred).tolist() == best.tolist()


@pytest.mark.parametrize(("strength", "share"), [(0.0, 0.9), (0.2, 1.0)])
def test_local_search_mostly_ends_at_the_optimum_and_never_below(strength, share):
    noise = np.random.default_rng(0).random((200, 9, 8))
    preferred = preferences(noise + strength * np.arange(8))
    exact, found = exact_order(preferred), local_search_order(preferred)
    pairs = zip(preferred, exact, found, strict=True)
    excess = np.array([kemeny_cost(one, search) - kemeny_cost(one, best) for one, best, search in pairs])
    assert (excess >= 0).all()
    assert (excess == 0).mean() >= share


def test_more_systems_than_are_exact_follow_a_common_order():
    order = np.random.default_rng(0).permutation(12)
    noisy = votes(*[order.tolist()] * 5, order[::-1].tolist(), sorted(order.tolist()))
    assert kemeny(preferences(noisy)).tolist() == order.tolist()
