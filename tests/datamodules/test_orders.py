import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_selection import chi2

from datamodules import ORDERS, Order, batches, make_order, shard
from datamodules.orders import correlated
from tta.errors import InputError

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=40).map(lambda values: np.array(values, dtype=np.int64))
SEEDS = st.integers(0, 2**31)
BALANCED = np.repeat(np.arange(10), 50)


def pairs(order):
    return list(zip(order.index.tolist(), order.domain.tolist(), strict=True))


@settings(max_examples=60)
@given(st.sampled_from(sorted(ORDERS)), LABELS, st.integers(1, 4), SEEDS, st.sampled_from([1e-6, 0.1, 1.0, 1e6]))
def test_every_order_is_a_permutation_and_repeats_itself(name, labels, num_domains, seed, gamma):
    order = make_order(name, labels, num_domains, seed, gamma)
    assert order.index.dtype == order.domain.dtype == np.int64
    expected = [(index, domain) for index in range(len(labels)) for domain in range(num_domains)]
    assert sorted(pairs(order)) == expected
    assert pairs(order) == pairs(make_order(name, labels, num_domains, seed, gamma))


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_the_seed_matters_and_domains_are_shuffled_differently(name):
    order = make_order(name, BALANCED, 2, 0)
    assert pairs(order) != pairs(make_order(name, BALANCED, 2, 1))
    assert order.index[order.domain == 0].tolist() != order.index[order.domain == 1].tolist()


@pytest.mark.parametrize("name", ["continual", "label_sorted", "correlated"])
def test_domains_follow_each_other(name):
    assert np.all(np.diff(make_order(name, BALANCED, 3, 0).domain) >= 0)


@pytest.mark.parametrize("name", ["continual", "label_sorted", "correlated"])
def test_a_domain_does_not_depend_on_how_many_follow(name):
    short, long = make_order(name, BALANCED, 1, 7), make_order(name, BALANCED, 3, 7)
    assert short.index.tolist() == long.index[: len(BALANCED)].tolist()


def test_mixed_has_many_domains_in_a_batch():
    assert len(np.unique(make_order("mixed", BALANCED, 5, 0).domain[:64])) == 5


@given(LABELS, SEEDS)
def test_label_sorted_ascends_inside_each_domain(labels, seed):
    order = make_order("label_sorted", labels, 2, seed)
    for domain in range(2):
        assert np.all(np.diff(labels[order.index[order.domain == domain]]) >= 0)


def label_changes(gamma, seed, num_slots=None):
    labels = BALANCED[correlated(BALANCED, 1, seed, gamma, num_slots).index]
    return int((np.diff(labels) != 0).sum())


def test_a_tiny_gamma_puts_every_class_into_one_slot():
    # Among many slots two classes rarely share one: most streams are then sorted, with nine changes for ten classes.
    changes = [label_changes(1e-6, seed, num_slots=200) for seed in range(20)]
    assert np.median(changes) == 9
    assert np.median([label_changes(1e-6, seed) for seed in range(20)]) < 300


@settings(max_examples=10)
@given(SEEDS)
def test_a_large_gamma_looks_independent(seed):
    labels = BALANCED[make_order("correlated", BALANCED, 1, seed, 1e6).index]
    table = np.stack([np.bincount(slot, minlength=10) for slot in labels.reshape(10, 50)])
    statistic = chi2(table, np.arange(10))[0].sum()
    # The 0.99 quantile of chi-square with 81 degrees of freedom; an even deal stays far below.
    assert statistic < 113.5


def test_a_smaller_gamma_changes_the_label_less_often():
    changes = [np.mean([label_changes(gamma, seed) for seed in range(5)]) for gamma in (1e-3, 0.1, 1.0, 100.0)]
    assert changes == sorted(changes)
    assert changes[-1] > 400


@given(LABELS, st.integers(1, 7), st.integers(1, 3), st.booleans())
def test_batches_follow_the_order_without_loss(labels, batch_size, num_domains, by_domain):
    order = make_order("continual", labels, num_domains, 0)
    cut = batches(order, batch_size, by_domain)
    assert [pair for batch in cut for pair in batch] == pairs(order)
    assert all(1 <= len(batch) <= batch_size + 1 for batch in cut)

    def count(samples: int) -> int:
        whole, rest = divmod(samples, batch_size)
        return max(whole + (rest > (batch_size > 1)), 1)

    if by_domain:
        assert all(len({domain for _, domain in batch}) == 1 for batch in cut)
        assert len(cut) == num_domains * count(len(labels))
    else:
        assert len(cut) == count(len(labels) * num_domains)


def test_an_empty_order_has_no_batches():
    empty = np.zeros(0, dtype=np.int64)
    assert batches(Order(empty, empty), 4, by_domain=True) == []


@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 5))
def test_shards_partition_with_equal_lengths(samples, batch_size, world_size):
    whole = [(index, 0) for index in range(samples)]
    stream = [whole[start : start + batch_size] for start in range(0, samples, batch_size)]
    if samples < world_size and len(stream) < world_size:
        with pytest.raises(InputError, match="fewer devices"):
            shard(stream, 0, world_size)
        return
    shards = [shard(stream, rank, world_size) for rank in range(world_size)]
    assert len({len(part) for part in shards}) == 1
    assert sorted(pair for part in shards for batch in part for pair in batch) == whole
    assert all(1 <= len(batch) <= batch_size + 1 for part in shards for batch in part)
    assert [pair for batch in stream for pair in batch] == whole


def test_full_rounds_deal_every_world_th_batch():
    stream = [[(index, 0)] for index in range(6)]
    assert shard(stream, 1, 3) == [[(1, 0)], [(4, 0)]]


def test_an_unknown_order_names_the_closest():
    with pytest.raises(InputError, match=r"order: 'mixd' is unknown.*correlated.*Did you mean 'mixed'\?"):
        make_order("mixd", BALANCED, 1, 0)


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan"), float("inf"), 1e-9])
def test_a_gamma_out_of_range_is_refused(gamma):
    with pytest.raises(InputError, match="gamma"):
        make_order("correlated", BALANCED, 1, 0, gamma)


def test_slots_can_be_chosen():
    order = correlated(BALANCED, 1, 0, gamma=0.1, num_slots=1)
    assert sorted(order.index.tolist()) == list(range(500))
    with pytest.raises(InputError, match="num_slots"):
        correlated(BALANCED, 1, 0, num_slots=0)


def test_a_lone_last_sample_joins_the_batch_before():
    order = make_order("continual", np.zeros(33, dtype=np.int64), 2, seed=0)
    assert [len(batch) for batch in batches(order, 16, by_domain=True)] == [16, 17, 16, 17]
    assert [len(batch) for batch in batches(order, 1, by_domain=True)] == [1] * 66
    single = make_order("continual", np.zeros(1, dtype=np.int64), 2, seed=0)
    assert [len(batch) for batch in batches(single, 16, by_domain=True)] == [1, 1]
