"""Estimates of the class prior from a stream of predictions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tta
from tta.adapters import BlackBox, CalibratedDegree, ExpectationMaximization, MovingAverage, OraclePrior
from tta.adapters.label_shift_network import LabelShiftNetwork
from tta.adapters.label_shift_source import SourceFigures
from tta.adapters.prior_estimators import PriorEstimator
from tta.companion import Companion

COUNTS = [4.0, 2.0, 1.0]


def figures(**more: Tensor) -> SourceFigures:
    network = LabelShiftNetwork(2, COUNTS)
    tensors = network.tensors()
    for head in ("raw", "uniform"):
        tensors |= {f"{head}.temperatures": torch.tensor(1.0), f"{head}.biases": torch.zeros(3)}
        tensors |= {f"{head}.{name}": tensor for name, tensor in more.items()}
    return SourceFigures(Companion("LabelShift", tensors, {"network": network.settings()}), None)


def itself(value: Tensor) -> Tensor:
    return value


def ready(estimator: PriorEstimator, source: SourceFigures) -> PriorEstimator:
    estimator.prepare(source)
    return estimator


def logits_of(*rows: list[float]) -> Tensor:
    return torch.tensor(rows).log()


ALL = {
    "average": MovingAverage,
    "em": ExpectationMaximization,
    "blackbox": BlackBox,
    "degree": CalibratedDegree,
    "oracle": lambda: OraclePrior([1, 1, 2]),
}


def test_moving_average_by_hand():
    source = figures()
    estimator = ready(MovingAverage(momentum=0.5, start="source"), source)
    estimator.update(logits_of([0.2, 0.3, 0.5], [0.4, 0.5, 0.1]), source, itself)
    expected = 0.5 * torch.tensor([4 / 7, 2 / 7, 1 / 7]) + 0.5 * torch.tensor([0.3, 0.4, 0.3])
    assert torch.allclose(estimator.prior, expected)
    assert torch.allclose(ready(MovingAverage(), source).prior, torch.full((3,), 1 / 3))


def test_windowed_estimates_forget_what_left_the_window():
    source = figures()
    short = ready(ExpectationMaximization(window=2), source)
    fresh = ready(ExpectationMaximization(window=2), source)
    short.update(logits_of([0.9, 0.05, 0.05]), source, itself)
    for estimator in (short, fresh):
        estimator.update(logits_of([0.1, 0.1, 0.8], [0.2, 0.6, 0.2]), source, itself)
    assert torch.allclose(short.prior, fresh.prior)
    assert not torch.allclose(short.prior, torch.full((3,), 1 / 3), atol=0.01)


def test_em_concentration_keeps_the_first_batch_calm():
    source = figures()
    bold, calm = (ready(ExpectationMaximization(concentration=c), source) for c in (1.0, 50.0))
    for estimator in (bold, calm):
        estimator.update(logits_of([0.9, 0.05, 0.05]), source, itself)
    assert float(bold.prior[0]) > 0.95
    assert float(calm.prior[0]) < 0.36


@settings(max_examples=10)
@given(st.permutations([0.6, 0.3, 0.1]), st.integers(0, 100))
def test_em_finds_the_prior_of_calibrated_predictions_batch_by_batch(truth, seed):
    generator = torch.Generator().manual_seed(seed)
    source = figures()
    estimator = ready(ExpectationMaximization(window=2000, concentration=1.0), source)
    labels = torch.multinomial(torch.tensor(truth), 2000, replacement=True, generator=generator)
    x = 2.0 * labels + torch.randn(2000, generator=generator)
    logits = -0.5 * (x[:, None] - 2.0 * torch.arange(3)) ** 2
    for batch in logits.split(100):
        estimator.update(batch, source, itself)
    assert float((estimator.prior - torch.bincount(labels) / 2000).abs().sum()) < 0.12


def test_black_box_undoes_the_confusion():
    confusion = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.1, 0.2, 0.7]])
    truth = torch.tensor([0.1, 0.2, 0.7])
    source = figures(confusions=confusion)
    estimator = ready(BlackBox(momentum=0.0, ridge=0.0), source)
    estimator.update((confusion @ truth).log()[None], source, itself)
    assert torch.allclose(estimator.prior, truth, atol=1e-4)


def test_degree_is_one_nought_or_minus_one_where_the_held_out_draws_were():
    prior = torch.tensor(COUNTS) / 7
    means = torch.stack([(slope * prior.log()).softmax(0) for slope in (0.3, 0.1, -0.2)])
    source = figures(means=means)
    estimator = ready(CalibratedDegree(shrinkage=0.0, window=1), source)
    for mean, degree in zip(means, (1.0, 0.0, -1.0), strict=True):
        estimator.update(mean.log()[None], source, itself)
        assert torch.allclose(estimator.prior, (degree * prior.log()).softmax(0), atol=1e-3)
    halfway = (0.2 * prior.log()).softmax(0)
    estimator.update(halfway.log()[None], source, itself)
    assert torch.allclose(estimator.prior, (0.5 * prior.log()).softmax(0), atol=0.01)
    estimator.update((2.0 * prior.log()).softmax(0).log()[None], source, itself)
    assert torch.allclose(estimator.prior, prior, atol=1e-5)


def test_degree_is_drawn_to_the_uniform_prior_by_shrinkage():
    prior = torch.tensor(COUNTS) / 7
    source = figures(means=torch.stack([(slope * prior.log()).softmax(0) for slope in (0.3, 0.0, -0.3)]))
    estimator = ready(CalibratedDegree(shrinkage=3.0), source)
    estimator.update((0.3 * prior.log()).softmax(0).log()[None], source, itself)
    assert torch.allclose(estimator.prior, (0.25 * prior.log()).softmax(0), atol=1e-3)


def test_oracle_is_what_was_given_and_stays():
    source = figures()
    estimator = ready(OraclePrior([0, 1, 3]), source)
    estimator.update(logits_of([0.9, 0.05, 0.05]), source, itself)
    assert torch.allclose(estimator.prior, torch.tensor([0.0, 0.25, 0.75]), atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_a_process_without_images_leaves_the_estimate_to_the_others(name):
    source = figures(confusions=0.8 * torch.eye(3) + 0.2 / 3, means=torch.full((3, 3), 1 / 3))
    estimator, asked = ready(ALL[name](), source), []
    estimator.update(torch.empty(0, 3), source, lambda value: asked.append(value) or value)
    assert torch.allclose(estimator.prior, ready(ALL[name](), source).prior, atol=1e-6)
    assert torch.isfinite(estimator.prior).all()
    assert len(asked) == (name != "oracle")


@pytest.mark.parametrize("name", ALL)
def test_reset_is_a_fresh_start_and_state_goes_on(name):
    source = figures(confusions=0.8 * torch.eye(3) + 0.2 / 3, means=torch.full((3, 3), 1 / 3))
    estimator = ready(ALL[name](), source)
    batches = [torch.randn(4, 3) for _ in range(3)]
    estimator.update(batches[0], source, itself)
    copied = ready(ALL[name](), source)
    copied.load_state_dict(estimator.state_dict())
    for one in (estimator, copied):
        one.update(batches[1], source, itself)
    assert torch.equal(copied.prior, estimator.prior)
    estimator.reset(source)
    fresh = ready(ALL[name](), source)
    assert all(torch.equal(a, b) for a, b in zip(estimator.buffers(), fresh.buffers(), strict=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MovingAverage(momentum=1.0), "momentum=1.0: need 0 <= momentum < 1"),
        (lambda: MovingAverage(start="target"), "start='target': choose from uniform, source"),
        (lambda: MovingAverage(logits="calibrated"), "logits='calibrated': MovingAverage takes adapted, raw, uniform"),
        (lambda: ExpectationMaximization(logits="adapted"), "ExpectationMaximization takes raw, uniform"),
        (lambda: ExpectationMaximization(window=0), "window=0: need window >= 1"),
        (lambda: ExpectationMaximization(concentration=0.5), "concentration=0.5: need"),
        (lambda: ExpectationMaximization(concentration=math.nan), "concentration=nan: need"),
        (lambda: BlackBox(ridge=-1.0), "ridge=-1.0: need ridge >= 0"),
        (lambda: CalibratedDegree(shrinkage=-1.0), "shrinkage=-1.0: need"),
        (lambda: ready(OraclePrior([1, 1]), figures()), "target_prior has 2 numbers for 3 classes"),
        (lambda: ready(OraclePrior([1, -1, 1]), figures()), "target_prior holds -1"),
        (lambda: ready(BlackBox(), SourceFigures(None, COUNTS)), "BlackBox needs .* give companion="),
        (lambda: ready(CalibratedDegree(), SourceFigures(None, COUNTS)), "CalibratedDegree needs .* give companion="),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(tta.InputError, match=message):
        make()
