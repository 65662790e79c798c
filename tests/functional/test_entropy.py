import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tta.functional import effective_classes, marginal_entropy, softmax_entropy


def test_closed_forms():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [math.log(3), 0.0, -math.inf, -math.inf], [200.0, 0.0, 0.0, 0.0]])
    expected = torch.tensor([math.log(4), math.log(4) - 0.75 * math.log(3), 0.0])
    torch.testing.assert_close(softmax_entropy(logits), expected)


def test_masked_classes_contribute_nothing_to_value_and_gradient():
    row = torch.randn(1, 3)
    masked = torch.cat([row, torch.full((1, 2), -math.inf)], dim=1).requires_grad_()
    plain = row.clone().requires_grad_()
    torch.testing.assert_close(softmax_entropy(masked), softmax_entropy(plain))
    gradients = [torch.autograd.grad(softmax_entropy(x).sum(), x)[0] for x in (masked, plain)]
    torch.testing.assert_close(gradients[0][:, :3], gradients[1])
    assert torch.equal(gradients[0][:, 3:], torch.zeros(1, 2))


def test_row_with_nan_gives_nan_which_no_threshold_passes_and_leaves_other_rows():
    logits = torch.randn(3, 5)
    clean = softmax_entropy(logits)
    logits[1, 2] = math.nan
    entropy = softmax_entropy(logits)
    assert torch.isnan(entropy).tolist() == [False, True, False]
    assert not (entropy[1] < math.inf)
    assert torch.equal(entropy[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    """Probabilities around e**-15 are coarse in half precision; four thousand of them matter."""
    logits = torch.zeros(1, 4097, dtype=dtype)
    logits[0, 0] = 15.0
    p = torch.softmax(logits.double(), dim=1)
    entropy = softmax_entropy(logits)
    assert entropy.dtype == torch.float32
    assert torch.equal(entropy, softmax_entropy(logits.float()))
    torch.testing.assert_close(entropy.double(), -(p * p.log()).sum(1), rtol=1e-3, atol=0.0)


def test_gradient_is_that_of_the_formula():
    logits = torch.randn(6, 7, dtype=torch.float64, requires_grad=True)
    p = logits.softmax(1)
    (expected,) = torch.autograd.grad(-(p * p.log()).sum(), logits)
    (gradient,) = torch.autograd.grad(softmax_entropy(logits).sum(), logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)
    p, h = p.detach(), softmax_entropy(logits.detach()).double()
    torch.testing.assert_close(gradient, -p * (p.log() + h[:, None]), rtol=1e-5, atol=1e-6)


rows = st.lists(st.lists(st.floats(-40, 40, width=32), min_size=4, max_size=4), min_size=1, max_size=6)


@given(rows, st.permutations(range(4)), st.floats(-50, 50, width=32))
def test_bounds_and_invariances(values, order, shift):
    logits = torch.tensor(values)
    entropy = softmax_entropy(logits)
    assert (entropy >= 0).all()
    assert (entropy <= math.log(4) + 1e-5).all()
    torch.testing.assert_close(softmax_entropy(logits[:, order]), entropy, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(softmax_entropy(logits + shift), entropy, rtol=1e-3, atol=1e-4)


# ---- marginal entropy ------------------------------------------------------------------------------------------------


def test_marginal_entropy_of_spread_concentrated_and_uncertain_predictions():
    confident = torch.eye(4)
    assert float(marginal_entropy(confident)) == pytest.approx(1.0)
    assert float(marginal_entropy(confident[[2, 2, 2]])) == 0.0
    assert float(marginal_entropy(torch.full((3, 4), 0.25))) == pytest.approx(1.0)
    assert float(marginal_entropy(confident[[0, 0, 1, 1]])) == pytest.approx(0.5)


@given(rows, st.permutations(range(4)))
def test_marginal_entropy_bounds_and_invariances(values, order):
    probabilities = torch.tensor(values).softmax(1)
    value = float(marginal_entropy(probabilities))
    assert 0.0 <= value <= 1.0 + 1e-6
    assert float(marginal_entropy(probabilities[:, order])) == pytest.approx(value, abs=1e-5)
    assert float(marginal_entropy(probabilities.flip(0))) == pytest.approx(value, abs=1e-5)
    individual = float(softmax_entropy(torch.tensor(values)).mean()) / math.log(4)
    assert value >= individual - 1e-5  # entropy is concave


# ---- effective classes -----------------------------------------------------------------------------------------------

histograms = st.lists(st.integers(0, 10_000), min_size=2, max_size=12).filter(lambda counts: sum(counts) > 0)


@given(histograms, st.data())
def test_effective_classes_bounds_and_permutation_invariance(counts, data):
    value = effective_classes(torch.tensor(counts))
    present = sum(count > 0 for count in counts)
    assert 1 - 1e-5 <= float(value) <= present + 1e-4 * present
    order = data.draw(st.permutations(range(len(counts))))
    assert float(effective_classes(torch.tensor(counts)[list(order)])) == pytest.approx(float(value), rel=1e-5)
    assert float(effective_classes(3 * torch.tensor(counts))) == pytest.approx(float(value), rel=1e-5)


def test_effective_classes_of_equal_shares_counts_them():
    for number in range(1, 6):
        counts = torch.tensor([7] * number + [0] * 3)
        assert float(effective_classes(counts)) == pytest.approx(number, rel=1e-6)
    assert float(effective_classes(torch.tensor([2, 1, 1]))) == pytest.approx(math.exp(1.5 * math.log(2)))


def test_effective_classes_of_an_empty_histogram_is_nan():
    value: Tensor = effective_classes(torch.zeros(4, dtype=torch.long))
    assert torch.isnan(value)
