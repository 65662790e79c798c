"""Degrees of imbalance, losses and logits for another prior, and its estimation."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import tta
from tta.functional import (
    bias_corrected_temperature,
    black_box_shift,
    class_prior,
    expectation_maximization,
    generalized_logit_adjusted_loss,
    inverse_prior,
    linear_degree,
    log_slope_degree,
    logit_adjustment,
)

LONG_TAILED = class_prior([0.01 ** (k / 9) for k in range(10)])
UNIFORM = torch.full((10,), 0.1)
PRIORS = st.lists(st.floats(0.05, 1.0), min_size=3, max_size=6).map(class_prior)


def test_class_prior_scales_counts():
    assert torch.allclose(class_prior([30, 10]), torch.tensor([0.75, 0.25]))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [([1.0], "counts has shape"), ([1, 0, 2], "counts holds 0: "), ([1, float("inf")], "counts holds inf: ")],
)
def test_class_prior_refuses(numbers, message):
    with pytest.raises(tta.InputError, match=message):
        class_prior(numbers, "counts")


def test_inverse_prior_by_hand():
    assert torch.allclose(inverse_prior(torch.tensor([0.5, 0.25, 0.25])), torch.tensor([0.2, 0.4, 0.4]))


def test_inverse_of_an_exponential_tail_is_its_mirror():
    assert torch.allclose(inverse_prior(LONG_TAILED), LONG_TAILED.flip(0), atol=1e-6)


def test_degrees_at_the_anchors():
    mirror = inverse_prior(LONG_TAILED)
    anchors = torch.stack([LONG_TAILED, UNIFORM, mirror])
    assert torch.allclose(linear_degree(anchors, LONG_TAILED), torch.tensor([1.0, 0.0, -0.55]), atol=0.005)
    assert torch.allclose(log_slope_degree(anchors, LONG_TAILED), torch.tensor([0.96, 0.0, -0.96]), atol=0.005)


def test_degree_at_the_anchors_does_not_depend_on_the_number_of_classes():
    source = class_prior([(1 / 100) ** (k / 999) for k in range(1000)])
    anchors = torch.stack([source, torch.full_like(source, 1e-3), inverse_prior(source)])
    assert torch.allclose(log_slope_degree(anchors, source), torch.tensor([1.0, 0.0, -1.0]), atol=0.05)


def test_linear_degree_by_hand():
    source = torch.tensor([0.5, 0.3, 0.2])
    # away from uniform: (1/6, -1/30, -2/15); squared length 7/150; the other way round <., .> = -17/300
    flipped = linear_degree(source.flip(0), source)
    assert float(flipped) == pytest.approx(((-2 / 15) * (1 / 6) * 2 + (1 / 30) ** 2) / (7 / 150), abs=1e-5)


@given(PRIORS)
def test_degree_of_the_source_is_one_without_floor_and_of_the_uniform_prior_zero(source):
    if float(source.max() - source.min()) < 0.02:
        return
    uniform = torch.full_like(source, 1 / len(source))
    assert float(linear_degree(source, source)) == pytest.approx(1.0, abs=1e-3)
    assert float(log_slope_degree(source, source, floor=0.0)) == pytest.approx(1.0, abs=1e-3)
    assert abs(float(log_slope_degree(uniform, source))) < 1e-3
    assert abs(float(linear_degree(uniform, source))) < 1e-3


def test_degree_of_a_uniform_source_is_zero():
    assert float(linear_degree(LONG_TAILED, UNIFORM)) == pytest.approx(0.0, abs=1e-3)
    assert float(log_slope_degree(LONG_TAILED, UNIFORM)) == pytest.approx(0.0, abs=1e-3)


def test_loss_is_cross_entropy_at_tau_zero_and_balanced_softmax_at_tau_one():
    logits, labels = torch.randn(6, 10), torch.arange(6)
    plain = generalized_logit_adjusted_loss(logits, labels, LONG_TAILED, 0.0)
    assert torch.allclose(plain, F.cross_entropy(logits, labels))
    balanced = generalized_logit_adjusted_loss(logits, labels, LONG_TAILED, 1.0)
    assert torch.allclose(balanced, F.cross_entropy(logits + LONG_TAILED.log(), labels))


@pytest.mark.parametrize("tau", [0.0, 1.0, 2.0])
def test_loss_needs_no_offset_for_samples_of_the_prior_that_tau_stands_for(tau):
    logits, labels = torch.randn(6, 10), torch.arange(6)
    drawn = ((1 - tau) * LONG_TAILED.log()).softmax(dim=0)
    loss = generalized_logit_adjusted_loss(logits, labels, LONG_TAILED, tau, drawn)
    assert torch.allclose(loss, F.cross_entropy(logits, labels), atol=1e-5)


@pytest.mark.parametrize("tau", [0.0, 1.0, 2.0])
def test_loss_is_least_at_the_logits_of_the_prior_that_tau_stands_for(tau):
    """Without features the best logits are the log prior: source^(1 - tau)."""
    source = class_prior([6, 3, 1])
    logits = torch.zeros(3, requires_grad=True)
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    optimizer = torch.optim.LBFGS([logits], max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = generalized_logit_adjusted_loss(logits.expand(10, 3), labels, source, tau)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.allclose(logits.softmax(0), ((1 - tau) * source.log()).softmax(0), atol=1e-3)


def test_logit_adjustment_turns_posteriors_of_one_prior_into_those_of_another():
    source, target, likelihood = class_prior([3, 1]), class_prior([1, 4]), torch.tensor([0.2, 0.7])
    posterior = source * likelihood / (source @ likelihood)
    moved = (posterior.log() + logit_adjustment(target, source, floor=1e-9)).softmax(0)
    assert torch.allclose(moved, target * likelihood / (target @ likelihood), atol=1e-5)


def test_logit_adjustment_keeps_classes_estimated_at_nothing_possible():
    offset = logit_adjustment(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]), floor=2e-3)  # of 1 / 2
    assert float(offset[1]) == pytest.approx(math.log(1e-3 / 0.5))


def sample(prior, count, generator, spread=1.5):
    """Gaussian classes on a line, and their exact posteriors under another prior."""
    labels = torch.multinomial(prior, count, replacement=True, generator=generator)
    x = spread * labels + torch.randn(count, generator=generator)
    return labels, -0.5 * (x[:, None] - spread * torch.arange(len(prior))) ** 2


@settings(max_examples=15)
@given(PRIORS, st.integers(0, 1000))
def test_em_recovers_the_prior_of_calibrated_posteriors(target, seed):
    generator = torch.Generator().manual_seed(seed)
    source = torch.rand(len(target), generator=generator) + 0.2
    source = source / source.sum()
    labels, log_likelihood = sample(target, 20_000, generator)
    posteriors = (log_likelihood + source.log()).softmax(1)
    estimate = expectation_maximization(posteriors, source, steps=500)
    truth = torch.bincount(labels, minlength=len(target)) / len(labels)
    assert float(estimate.sum()) == pytest.approx(1.0, abs=1e-4)
    assert float((estimate - truth).abs().sum()) < 0.15
    likely = [float((log_likelihood + prior.log()).logsumexp(1).mean()) for prior in (estimate, truth)]
    assert likely[0] >= likely[1] - 1e-4, "the estimate explains the samples at least as well as the truth"


def test_em_first_step_by_hand():
    posteriors, source = torch.tensor([[0.8, 0.2], [0.4, 0.6]]), torch.tensor([0.5, 0.5])
    assert torch.allclose(expectation_maximization(posteriors, source, steps=1), torch.tensor([0.6, 0.4]))
    # concentration 2: one more sample of each class
    drawn_in = expectation_maximization(posteriors, source, concentration=2.0, steps=1)
    assert torch.allclose(drawn_in, torch.tensor([2.2 / 4, 1.8 / 4]))


def test_em_weights_count_like_copies():
    posteriors, source = torch.tensor([[0.8, 0.2], [0.4, 0.6]]), torch.tensor([0.5, 0.5])
    weighted = expectation_maximization(posteriors, source, torch.tensor([2.0, 1.0]))
    assert torch.allclose(weighted, expectation_maximization(posteriors[[0, 0, 1]], source), atol=1e-5)


def test_em_never_lowers_the_likelihood():
    posteriors = torch.rand(50, 4).softmax(1)
    source = class_prior([4, 3, 2, 1])
    values = []
    for steps in (1, 2, 5, 20, 100):
        estimate = expectation_maximization(posteriors, source, steps=steps, tolerance=0.0)
        values.append(float((posteriors / source @ estimate).log().sum()))
    assert all(later >= earlier - 1e-4 for earlier, later in pairwise(values))


def test_em_of_nothing_is_the_source():
    source = class_prior([3, 1])
    assert torch.equal(expectation_maximization(torch.empty(0, 2), source), source)
    assert torch.allclose(
        expectation_maximization(torch.empty(0, 2), source, concentration=2.0), torch.tensor([0.5, 0.5])
    )


@settings(max_examples=25)
@given(PRIORS)
def test_black_box_recovers_the_prior_exactly_where_the_confusion_holds(target):
    classes = len(target)
    given_class = 0.6 * torch.eye(classes) + 0.4 / classes
    source = torch.full((classes,), 1 / classes)
    estimate = black_box_shift(given_class @ target, given_class * source, source)
    assert torch.allclose(estimate, target, atol=1e-4)


def test_black_box_ridge_draws_towards_no_shift():
    source, target = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
    confusion = torch.tensor([[0.8, 0.2], [0.2, 0.8]])
    estimates = [black_box_shift(confusion @ target, confusion * source, source, ridge) for ridge in (0.0, 0.5, 1e6)]
    assert float(estimates[0][0]) > float(estimates[1][0]) > float(estimates[2][0])
    assert torch.allclose(estimates[2], source, atol=1e-3)


def test_calibration_recovers_temperature_and_biases():
    generator = torch.Generator().manual_seed(0)
    bias = torch.tensor([0.5, -0.5, 0.0])
    rows, labels, log_priors = [], [], []
    for prior in (class_prior([5, 2, 1]), class_prior([1, 1, 1]), class_prior([1, 2, 5])):
        drawn, log_likelihood = sample(prior, 3000, generator)
        rows.append(2.0 * (log_likelihood - bias))
        labels.append(drawn)
        log_priors.append(prior.log().expand(3000, -1))
    logits, labels, log_priors = torch.cat(rows), torch.cat(labels), torch.cat(log_priors)
    temperature, found = bias_corrected_temperature(logits, labels, log_priors, torch.zeros(3), ridge=0.0)
    assert float(temperature) == pytest.approx(2.0, abs=0.15)
    assert torch.allclose(found - found.mean(), bias, atol=0.15)
