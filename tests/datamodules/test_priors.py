import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.priors import (
    check_prior,
    long_tailed_counts,
    long_tailed_prior,
    long_tailed_subset,
    members,
    prior_counts,
    read_prior,
)
from tta.errors import InputError

WEIGHTS = st.lists(st.floats(0, 1), min_size=1, max_size=12).filter(lambda weights: sum(weights) > 0.01)


@pytest.mark.parametrize(
    ("num_classes", "most", "totals"),
    [
        (100, 500, {10: 19573, 50: 12608, 100: 10847}),
        (10, 5000, {10: 20431, 50: 13996, 100: 12406}),
        (100, 100, {2: 7166, 5: 4932, 10: 3876, 25: 2956, 50: 2486}),
        (10, 1000, {2: 7241, 5: 5081, 10: 4084, 25: 3229, 50: 2795}),
    ],
)
def test_exponential_counts_have_the_published_totals(num_classes, most, totals):
    counts = {ratio: long_tailed_counts(num_classes, most, ratio) for ratio in totals}
    assert {ratio: int(each.sum()) for ratio, each in counts.items()} == totals
    for ratio, each in counts.items():
        assert each[0] == most
        assert each[-1] == int(most / ratio)
        assert np.all(np.diff(each) <= 0)


def test_step_counts_have_two_halves():
    assert long_tailed_counts(5, 100, 10, "step").tolist() == [100, 100, 10, 10, 10]
    assert long_tailed_counts(1, 7, 3).tolist() == [7]


@pytest.mark.parametrize("kind", ["exponential", "step"])
def test_a_subset_has_the_images_of_the_published_code(kind):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 30))
    state = np.random.get_state()[1].copy()
    chosen = long_tailed_subset(labels, 10, 10, kind)
    assert np.array_equal(np.random.get_state()[1], state)
    published = np.random.RandomState(0)
    expected = []
    for label, count in enumerate(long_tailed_counts(10, 30, 10, kind)):
        positions = np.where(labels == label)[0]
        published.shuffle(positions)
        expected += positions[:count].tolist()
    assert chosen.tolist() == expected


def test_a_subset_of_unbalanced_data_starts_from_the_smallest_class():
    labels = np.repeat([0, 1, 2], [8, 4, 9])
    assert np.bincount(labels[long_tailed_subset(labels, 3, 4)]).tolist() == [4, 2, 1]
    with pytest.raises(InputError, match="labels: class 3 has no image"):
        long_tailed_subset(labels, 4, 4)


@given(WEIGHTS, st.integers(0, 1000))
def test_prior_counts_sum_up_and_are_less_than_one_off(weights, total):
    prior = np.array(weights) / sum(weights)
    counts = prior_counts(prior, total)
    assert counts.sum() == total
    assert np.all(np.abs(counts - prior * total) < 1 + 1e-9)
    assert np.all(counts[prior == 0] == 0)


@given(st.integers(1, 50), st.floats(1, 1000), st.sampled_from(["forward", "backward"]))
def test_a_long_tailed_prior_is_a_distribution_with_its_ratio(num_classes, ratio, direction):
    prior = long_tailed_prior(num_classes, ratio, direction)
    assert check_prior(prior, num_classes).sum() == pytest.approx(1)
    first, last = (prior[0], prior[-1]) if direction == "forward" else (prior[-1], prior[0])
    assert first / last == pytest.approx(ratio if num_classes > 1 else 1)


@given(st.lists(st.integers(0, 4), max_size=30))
def test_members_partition_the_images(labels):
    labels = np.array(labels, dtype=np.int64)
    classes = members(labels, 5)
    assert [positions.tolist() for positions in classes] == [np.flatnonzero(labels == k).tolist() for k in range(5)]


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([0.5, 0.5], "prior: 2 numbers do not fit 3 classes"),
        ([1.5, -0.5, 0.0], "prior: -0.5 is no probability"),
        ([float("nan"), 0.5, 0.5], "prior: nan is no probability"),
        ([0.5, 0.5, 0.1], "prior: the numbers sum to 1.1, not to 1"),
    ],
)
def test_what_is_no_prior_is_refused(prior, message):
    with pytest.raises(InputError, match=message):
        check_prior(prior, 3)


def test_priors_are_read_from_texts_and_lists():
    assert read_prior("uniform", 4, "start").tolist() == [0.25] * 4
    assert read_prior("backward:50", 4, "start").tolist() == long_tailed_prior(4, 50, "backward").tolist()
    assert read_prior([0.25, 0.75], 2, "start").tolist() == [0.25, 0.75]
    for text in ("flat", "forward", "forward:0.5", "sideways:5", "forward:x", "forward:inf"):
        with pytest.raises(InputError, match=f"start: '{text}' is no prior; write uniform"):
            read_prior(text, 4, "start")


@pytest.mark.parametrize("ratio", [0.5, -1.0, float("nan"), float("inf")])
def test_a_ratio_below_one_is_refused(ratio):
    with pytest.raises(InputError, match=r"ratio: .* at least 1"):
        long_tailed_counts(3, 10, ratio)


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="imbalance: 'exp' is unknown"):
        long_tailed_counts(3, 10, 2, "exp")
    with pytest.raises(InputError, match="direction: 'up' is unknown"):
        long_tailed_prior(3, 2, "up")
