import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from datamodules.samplers import EpochSampler, random_subset, stratified_split


def test_epochs_are_shuffled_differently_and_can_be_chosen():
    sampler = EpochSampler(20, seed=0)
    first, second = list(sampler), list(sampler)
    assert sorted(first) == [(index, 0) for index in range(20)]
    assert sorted(second) == [(index, 1) for index in range(20)]
    assert [index for index, _ in first] != [index for index, _ in second]
    sampler.set_epoch(0)
    assert list(sampler) == first


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 5))
def test_an_epoch_resumes_where_it_was_left(size, given_before, epoch):
    sampler = EpochSampler(size, seed=0)
    sampler.set_epoch(epoch)
    iterator = iter(sampler)
    for _ in range(min(given_before, size - 1)):
        next(iterator)
    resumed = iter(EpochSampler(size, seed=0))
    resumed.load_state_dict(iterator.state_dict())
    assert list(resumed) == list(iterator)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 9))
def test_a_split_partitions_and_keeps_class_proportions(labels, seed):
    labels = np.array(labels)
    parts = stratified_split(labels, (0.5, 0.15, 0.35), seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for label in np.unique(labels):
        total = (labels == label).sum()
        for part, share in zip(parts, (0.5, 0.15, 0.35), strict=True):
            assert abs((labels[part] == label).sum() - share * total) <= 1


@given(st.integers(0, 30), st.integers(1, 40), st.integers(0, 9))
def test_a_subset_has_distinct_indices(size, most, seed):
    chosen = random_subset(size, most, seed)
    assert len(set(chosen.tolist())) == len(chosen) == min(size, most)
    assert chosen.tolist() == sorted(chosen.tolist())
    assert random_subset(size, None, seed).tolist() == list(range(size))
