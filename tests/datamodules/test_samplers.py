import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.samplers import EpochSampler, random_subset, stratified_split
from tta.errors import InputError


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


@given(st.integers(4, 40), st.integers(1, 4), st.integers(0, 3))
def test_processes_take_turns_in_an_epoch(size, processes, epoch):
    whole, *parts = (
        EpochSampler(size, 0, *place) for place in [(0, 1), *((rank, processes) for rank in range(processes))]
    )
    for sampler in (whole, *parts):
        sampler.set_epoch(epoch)
    turns = [entry for turn in zip(*parts, strict=True) for entry in turn]
    assert turns == list(whole)[: size // processes * processes]
    assert {len(part) for part in parts} == {size // processes}


def test_another_number_of_processes_goes_on_between_epochs_alone():
    iterator = iter(EpochSampler(20, 0))
    next(iterator)
    resumed = iter(EpochSampler(20, 0, rank=1, processes=2))
    with pytest.raises(InputError, match=r"an epoch that 1 processes share, and 2 are to go on: use the same --tr"):
        resumed.load_state_dict(iterator.state_dict())
    list(iterator)
    resumed.load_state_dict(iterator.state_dict())
    assert {epoch for _, epoch in resumed} == {1}


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
