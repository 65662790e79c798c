"""ROID's weights, losses and prior correction, by hand."""

import math

import pytest
import torch

from tta.functional import (
    certainty_diversity_weights,
    min_max_scaled,
    prior_corrected,
    soft_likelihood_ratio,
    symmetric_cross_entropy,
)


def test_scaling():
    torch.testing.assert_close(min_max_scaled(torch.tensor([2.0, 6.0, 3.0])), torch.tensor([0.0, 1.0, 0.25]))


@pytest.mark.parametrize("values", [[0.7], [0.7, 0.7, 0.7], [0.7, 0.7000001]], ids=["one", "equal", "rounding"])
def test_equal_values_scale_to_zero(values):
    assert torch.equal(min_max_scaled(torch.tensor(values)), torch.zeros(len(values)))


def test_weights_of_three_samples():
    """Two classes, uniform mean prediction: certain means diverse, and the formula is short."""
    p = torch.tensor([[0.5, 0.5], [0.7, 0.3], [0.1, 0.9]])
    cosine = torch.tensor([1.0, 1.0 / math.sqrt(2 * (0.49 + 0.09)), 1.0 / math.sqrt(2 * (0.01 + 0.81))])
    diversity = (1 - cosine) / (1 - cosine[2])
    assert diversity[1] < diversity.mean() < diversity[2]
    weights = certainty_diversity_weights(p.log(), torch.tensor([0.5, 0.5]), temperature=0.5)
    torch.testing.assert_close(weights, torch.tensor([0.0, 0.0, math.exp(2.0)]))


def test_weight_between_the_extremes():
    p = torch.tensor([[0.5, 0.5], [0.15, 0.85], [0.1, 0.9]])
    cosine = p.sum(1) / (math.sqrt(2) * p.norm(dim=1))
    entropy = -(p * p.log()).sum(1)
    d = (1 - cosine[1]) / (1 - cosine[2])
    c = (entropy[0] - entropy[1]) / (entropy[0] - entropy[2])
    weights = certainty_diversity_weights(p.log(), torch.tensor([0.5, 0.5]), temperature=1 / 3)
    torch.testing.assert_close(weights, torch.stack([torch.tensor(0.0), torch.exp(3 * d * c), torch.tensor(3.0).exp()]))


@pytest.mark.parametrize("count", [1, 4])
def test_samples_that_cannot_be_told_apart_weigh_one(count):
    logits = torch.tensor([[1.0, 3.0, -1.0]]).expand(count, 3)
    assert torch.equal(certainty_diversity_weights(logits, torch.full((3,), 1 / 3), 1 / 3), torch.ones(count))


def test_rows_that_are_not_finite_weigh_nothing_and_count_in_nothing():
    logits = torch.tensor([[1.0, 3.0], [2.0, 0.0], [0.0, 0.1]])
    mean = torch.tensor([0.4, 0.6])
    spoilt = torch.cat([logits[:1], torch.tensor([[torch.nan, 0.0], [torch.inf, 0.0]]), logits[1:]])
    expected = certainty_diversity_weights(logits, mean, 1 / 3)
    assert torch.equal(certainty_diversity_weights(spoilt, mean, 1 / 3)[[0, 3, 4]], expected)
    assert torch.equal(certainty_diversity_weights(spoilt, mean, 1 / 3)[1:3], torch.zeros(2))
    assert torch.equal(certainty_diversity_weights(spoilt[1:3], mean, 1 / 3), torch.zeros(2))


def test_soft_likelihood_ratio_of_two_classes():
    p = torch.tensor([[0.8, 0.2]])
    expected = -(0.8 * math.log(4 + 1e-5) + 0.2 * math.log(0.25 + 1e-5))
    assert soft_likelihood_ratio(p.log()).item() == pytest.approx(expected, rel=1e-5)


def test_soft_likelihood_ratio_stops_at_its_bound_and_is_finite_at_certainty():
    logits = torch.tensor([[200.0, 0.0, -torch.inf], [5.0, 0.0, 0.0]], requires_grad=True)
    losses = soft_likelihood_ratio(logits)
    assert losses[0].item() == pytest.approx(-0.99 * math.log(99 + 1e-5), rel=1e-4)
    losses.sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0].abs().max() == 0
    assert soft_likelihood_ratio(torch.zeros(2, 4)).tolist() == pytest.approx([math.log(3)] * 2, abs=1e-4)


def test_symmetric_cross_entropy_by_hand():
    p, q = torch.tensor([[0.8, 0.2]]), torch.tensor([[0.5, 0.5]])
    expected = -0.5 * (0.5 * math.log(0.8) + 0.5 * math.log(0.2) + math.log(0.5))
    assert symmetric_cross_entropy(p.log(), q.log()).item() == pytest.approx(expected, rel=1e-5)
    assert symmetric_cross_entropy(q.log(), p.log()).item() == pytest.approx(expected, rel=1e-5)


def test_symmetric_cross_entropy_with_a_masked_class_is_that_without_it():
    first, second = torch.randn(2, 4, 3)
    masked = torch.full((4, 1), -torch.inf)
    torch.testing.assert_close(
        symmetric_cross_entropy(torch.cat([first, masked], 1), torch.cat([second, masked], 1)),
        symmetric_cross_entropy(first, second),
    )


def test_prior_correction_by_hand():
    """Mean prediction (.65, .25, .1); s = max(1/2, 1/3) / .65."""
    p = torch.tensor([[0.9, 0.05, 0.05], [0.4, 0.45, 0.15]])
    logits = p.log()
    s = 0.5 / 0.65
    factors = torch.tensor([(0.65 + s) / (1 + 3 * s), (0.25 + s) / (1 + 3 * s), (0.1 + s) / (1 + 3 * s)])
    torch.testing.assert_close(prior_corrected(logits), logits * factors)
    assert logits[1].argmax() == 1, "logits are multiplied, so that a negative one of the frequent class gets lower"
    assert prior_corrected(logits)[0].argmax() == 0


def test_prior_correction_of_one_sample_and_of_a_long_batch():
    p = torch.tensor([[0.8, 0.2]])
    s = 1 / 0.8
    factors = torch.tensor([[(0.8 + s) / (1 + 2 * s), (0.2 + s) / (1 + 2 * s)]])
    torch.testing.assert_close(prior_corrected(p.log()), p.log() * factors)
    s = 0.5 / 0.8  # four samples, two classes: 1/C is the larger
    factors = torch.tensor([[(0.8 + s) / (1 + 2 * s), (0.2 + s) / (1 + 2 * s)]])
    torch.testing.assert_close(prior_corrected(p.log().expand(4, 2)), (p.log() * factors).expand(4, 2))


def test_prior_comes_from_finite_rows_alone():
    logits = torch.randn(3, 4)
    bad = torch.full((1, 4), torch.nan)
    assert torch.equal(prior_corrected(torch.cat([bad, logits]))[1:], prior_corrected(logits))
    assert prior_corrected(bad).isnan().all()
