import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tta.monitor import compare

N, C = 400, 10


@pytest.fixture
def mixed() -> Tensor:
    return torch.arange(N) % C


def noisy(labels: Tensor, accuracy: float) -> Tensor:
    """Right with the given frequency, elsewhere the next class but two, so that no class is favoured."""
    wrong = torch.rand(len(labels)) >= accuracy
    return torch.where(wrong, (labels + torch.randint(1, C, labels.shape)) % C, labels)


@given(
    st.integers(2, 12).flatmap(
        lambda c: st.tuples(
            st.just(c),
            st.lists(st.tuples(st.integers(0, c - 1), st.integers(-1, c - 1)), min_size=1, max_size=30),
            st.integers(1, 20),
            st.booleans(),
        )
    )
)
def test_source_against_itself_is_never_flagged(stream):
    """On any stream: mixed, sorted, of one class, labelled or not, short or long."""
    classes, pairs, repeat, single_class = stream
    predictions = torch.tensor([p for p, _ in pairs]).repeat(repeat)
    labels = torch.tensor([y for _, y in pairs]).repeat(repeat)
    if single_class:
        labels = torch.zeros_like(labels)
    verdict = compare(predictions, predictions, labels, classes)
    assert not verdict.collapsed
    assert not verdict.below_source
    assert verdict.agreement == 1.0


@pytest.mark.parametrize("labelled", [True, False])
def test_constant_predictor_on_a_mixed_stream_is_collapsed(mixed, labelled):
    labels = mixed if labelled else torch.full((N,), -1)
    verdict = compare(torch.full((N,), 3), noisy(mixed, 0.6), labels, C)
    assert verdict.collapsed
    assert verdict.below_source == labelled
    assert verdict.effective_classes == pytest.approx(1.0)
    assert verdict.top_class_share == 1.0
    assert verdict.source_effective_classes > 9
    assert verdict.source_top_class_share < 0.2
    assert math.isnan(verdict.accuracy) != labelled


@pytest.mark.parametrize("labelled", [True, False])
def test_stream_of_one_class_where_the_source_is_right_is_not_collapse(labelled):
    labels = torch.full((N,), 3)
    source = torch.where(torch.arange(N) % 10 == 0, 4, 3)
    verdict = compare(labels, source, labels if labelled else torch.full((N,), -1), C)
    assert not verdict.collapsed
    assert verdict.top_class_share == 1.0


def test_repaired_stream_of_one_class_is_not_collapse_where_labels_tell(mixed):
    labels = torch.full((N,), 3)
    source = noisy(labels, 0.2)
    repaired = compare(labels, source, labels, C)
    assert not repaired.collapsed
    assert repaired.accuracy == 1.0
    assert repaired.source_accuracy < 0.3
    assert compare(labels, source, torch.full((N,), -1), C).collapsed  # the documented false alarm


def test_collapse_needs_both_concentration_and_a_class_taken_over(mixed):
    """Effective classes below half, and the top class at least twice as frequent as under the source."""
    labels = torch.full((N,), -1)
    five_of_ten = mixed % 5
    assert not compare(five_of_ten, mixed, labels, C).collapsed  # exactly half is not below
    four_of_ten = mixed % 4
    assert compare(four_of_ten, mixed, labels, C).collapsed
    source = torch.cat([torch.full((N * 6 // 10,), 3), torch.arange(N * 4 // 10) % C])
    verdict = compare(torch.full((N,), 3), source, labels, C)
    assert verdict.effective_classes < 0.5 * verdict.source_effective_classes
    assert not verdict.collapsed  # the source predicts class 3 in six of ten already


@pytest.mark.parametrize(("samples", "flagged"), [(49, False), (50, True)])
def test_fifty_samples_are_needed(samples, flagged):
    labels = torch.arange(samples) % C
    verdict = compare(torch.zeros(samples, dtype=torch.long), labels, labels, C)
    assert verdict.collapsed == flagged
    assert verdict.below_source == flagged


def test_below_source_needs_significance_and_more_than_five_points(mixed):
    def verdict(losses: int, wins: int, samples: int) -> bool:
        labels = torch.arange(samples) % C
        wrong = (labels + 1) % C
        predictions, source = labels.clone(), labels.clone()
        predictions[:losses] = wrong[:losses]
        source[losses : losses + wins] = wrong[losses : losses + wins]
        return compare(predictions, source, labels, C).below_source

    assert verdict(losses=40, wins=0, samples=400)  # -10 points, error 1.5
    assert not verdict(losses=16, wins=0, samples=400)  # -4 points: significant, but within five
    assert not verdict(losses=40, wins=40, samples=400)  # no difference
    assert not verdict(losses=30, wins=20, samples=100)  # -10 points, error 7
    assert not verdict(losses=0, wins=40, samples=400)
    assert not verdict(losses=6, wins=0, samples=60)  # -10 points, error 3.9
    assert verdict(losses=60, wins=0, samples=60)  # always


def test_figures_of_an_empty_window():
    nothing = torch.zeros(0, dtype=torch.long)
    verdict = compare(nothing, nothing, nothing, C)
    assert not verdict.collapsed
    assert not verdict.below_source
    assert math.isnan(verdict.effective_classes)
    assert math.isnan(verdict.agreement)
    assert math.isnan(verdict.accuracy)


def test_unlabelled_samples_do_not_count_for_accuracy(mixed):
    labels = mixed.clone()
    labels[::2] = -1
    predictions = torch.where(torch.arange(N) % 4 == 1, (mixed + 1) % C, mixed)
    verdict = compare(predictions, mixed, labels, C)
    assert verdict.accuracy == pytest.approx(0.5)
    assert verdict.source_accuracy == pytest.approx(1.0)
    assert verdict.agreement == pytest.approx(0.75)
