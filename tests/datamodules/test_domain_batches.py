import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.domain_batches import EveryDomainBatches, OneDomainBatches
from tta.errors import InputError

KINDS = pytest.mark.parametrize("kind", [OneDomainBatches, EveryDomainBatches])


@st.composite
def cases(draw):
    """Domains of shuffled images, sizes of which a batch never needs more than there are, and a batch size."""
    count = draw(st.integers(1, 4))
    batch_size = draw(st.integers(count, 9))
    sizes = draw(st.lists(st.integers(batch_size, 25), min_size=count, max_size=count))
    seed = draw(st.integers(0, 5))
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(count), sizes)), sizes, batch_size, seed


def batches(kind, case, **options):
    domain, sizes, batch_size, seed = case
    return kind(domain, [f"d{number}" for number in range(len(sizes))], batch_size, seed, **options)


def indices(epoch):
    return [index for batch in epoch for index, _ in batch]


@given(cases())
def test_a_batch_of_one_domain_is_pure_and_full_and_domains_come_as_often_as_they_fill_one(case):
    domain, sizes, batch_size, _ = case
    epoch = list(batches(OneDomainBatches, case))
    assert all(len(batch) == batch_size for batch in epoch)
    domains = [{int(domain[index]) for index, _ in batch} for batch in epoch]
    assert all(len(found) == 1 for found in domains)
    counts = np.bincount([found.pop() for found in domains], minlength=len(sizes))
    assert counts.tolist() == [size // batch_size for size in sizes]


@given(cases())
def test_a_batch_of_every_domain_has_equal_shares_until_the_smallest_domain_ends(case):
    domain, sizes, batch_size, _ = case
    epoch = list(batches(EveryDomainBatches, case))
    share = batch_size // len(sizes)
    for batch in epoch:
        assert domain[[index for index, _ in batch]].tolist() == np.arange(len(sizes)).repeat(share).tolist()
    assert len(epoch) == min(sizes) // share


@KINDS
@given(case=cases())
def test_an_epoch_has_an_image_once_at_most_and_depends_on_seed_and_epoch_alone(kind, case):
    sampler = batches(kind, case)
    first, second = list(sampler), list(sampler)
    assert len(sampler) == len(first) == len(second)
    assert len(set(indices(first))) == len(indices(first))
    assert {epoch for batch in first for _, epoch in batch} == {0}
    assert {epoch for batch in second for _, epoch in batch} == {1}
    again = batches(kind, case)
    again.set_epoch(1)
    assert list(again) == second


@KINDS
def test_other_seeds_and_epochs_shuffle_images_and_domains_anew(kind):
    case = (np.arange(90) % 3, [30, 30, 30], 6, 0)
    sampler = batches(kind, case)
    first, second, other = list(sampler), list(sampler), list(batches(kind, (*case[:3], 1)))
    assert indices(first) != indices(second)
    assert indices(first) != indices(other)
    if kind is OneDomainBatches:
        orders = [[batch[0][0] % 3 for batch in epoch] for epoch in (first, second, other)]
        assert orders[0] != orders[1]
        assert orders[0] != orders[2]
        assert orders[0] != sorted(orders[0])


@KINDS
def test_what_an_epoch_leaves_out_comes_in_others(kind):
    sampler = batches(kind, (np.repeat([0, 1], [7, 11]), [7, 11], 4, 0))
    epochs = [set(indices(sampler)) for _ in range(20)]
    assert all(len(epoch) < 18 for epoch in epochs)
    assert set.union(*epochs) == set(range(18))


@KINDS
@given(case=cases(), given_before=st.integers(0, 30), epoch=st.integers(0, 3))
def test_an_epoch_resumes_where_it_was_left(kind, case, given_before, epoch):
    sampler = batches(kind, case)
    sampler.set_epoch(epoch)
    iterator = iter(sampler)
    for _ in range(min(given_before, len(sampler) - 1)):
        next(iterator)
    resumed = iter(batches(kind, case))
    resumed.load_state_dict(iterator.state_dict())
    assert list(resumed) == list(iterator)
    after = iter(batches(kind, case))
    after.load_state_dict(iterator.state_dict())
    assert list(after) == list(sampler), "at the end of an epoch the next one is due"


@KINDS
@given(case=cases(), processes=st.integers(1, 3))
def test_processes_share_the_batches(kind, case, processes):
    parts = [list(batches(kind, case, rank=rank, processes=processes)) for rank in range(processes)]
    whole = list(batches(kind, case))
    assert {len(part) for part in parts} == {len(whole) // processes}
    turns = [batch for turn in zip(*parts, strict=True) for batch in turn]
    assert turns == whole[: len(turns)]


@pytest.mark.parametrize(("kind", "needed"), [(OneDomainBatches, 6), (EveryDomainBatches, 3)])
def test_a_domain_without_enough_images_for_a_batch_is_refused(kind, needed):
    with pytest.raises(
        InputError, match=f"batch_size: 6 takes {needed} images of one domain, but 'd1' has 2"
    ) as caught:
        batches(kind, (np.array([0] * 8 + [1] * 2), [8, 2], 6, 0))
    assert "\n" not in str(caught.value)
