import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tta.errors import InputError
from tta.monitor import SourceBudget
from tta.monitor.budget import DEFAULT_BUDGET, SMALLEST_RUN

batches = st.lists(st.integers(1, 70), min_size=1, max_size=30)


def spend(budget: SourceBudget, sizes: list[int], passes_per_sample: int) -> list[tuple[float, int]]:
    """Allowed and compared samples after each batch of a stream."""
    samples = compared = 0
    history = []
    for size in sizes:
        samples += size
        rows = budget.rows(size, samples, passes_per_sample * samples, compared)
        assert rows.dtype == torch.int64
        assert rows.tolist() == sorted(set(rows.tolist()))
        assert all(0 <= row < size for row in rows.tolist())
        compared += len(rows)
        share = DEFAULT_BUDGET * passes_per_sample if budget.share is None else budget.share
        history.append((share * samples, compared))
    return history


@given(batches, st.floats(0.01, 1.0))
def test_share_is_kept_over_ragged_batches_and_never_exceeded(sizes, share):
    for allowed, compared in spend(SourceBudget(share), sizes, 1):
        assert compared <= allowed + 1e-6
        assert allowed - compared < SMALLEST_RUN + 1


@given(batches, st.sampled_from([1, 3, 6]))
def test_by_default_a_thirtieth_of_the_passes(sizes, passes):
    for allowed, compared in spend(SourceBudget(), sizes, passes):
        assert compared <= allowed + 1e-6
        assert allowed - compared < SMALLEST_RUN + 1


@given(batches)
def test_share_one_is_every_sample(sizes):
    assert all(allowed == compared for allowed, compared in spend(SourceBudget(1.0), sizes, 1))


def test_single_samples_are_run_as_they_come_due():
    budget, compared = SourceBudget(0.25), 0
    due = []
    for samples in range(1, 13):
        rows = budget.rows(1, samples, samples, compared)
        compared += len(rows)
        due.append(len(rows))
    assert due == [0, 0, 0, 1] * 3


def test_few_rows_wait_for_each_other_and_are_spread_over_the_batch():
    assert len(SourceBudget(0.1).rows(310, 310, 310, 0)) == 0
    assert SourceBudget(0.1).rows(320, 320, 320, 0).tolist() == list(range(0, 320, 10))


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_share_out_of_range(share):
    with pytest.raises(InputError, match=f"source_share={share}: need 0 < source_share <= 1"):
        SourceBudget(share)
