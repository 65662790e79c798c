import math

import pytest
import torch

from tta.functional import view_marginal_entropy


def test_entropy_of_the_mean_of_hand_made_predictions():
    """Means of (3/4, 1/4) and (1/4, 3/4) are halves; of (3/4, 1/4) twice it is the prediction itself."""
    sure, other = torch.tensor([math.log(3.0), 0.0]), torch.tensor([0.0, math.log(3.0)])
    assert view_marginal_entropy(torch.stack([sure, other])).item() == pytest.approx(math.log(2.0))
    own = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert view_marginal_entropy(torch.stack([sure, sure])).item() == pytest.approx(own)
    assert view_marginal_entropy(sure.unsqueeze(0)).item() == pytest.approx(own)


def test_gradient_is_that_of_the_plain_formula():
    logits = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain, own = logits.clone().requires_grad_(True), logits.clone().requires_grad_(True)
    mean = plain.softmax(dim=1).mean(dim=0)
    value = -(mean * mean.log()).sum()
    value.backward()
    got = view_marginal_entropy(own)
    got.backward()
    assert got.item() == pytest.approx(value.item(), rel=1e-6)
    torch.testing.assert_close(own.grad, plain.grad, rtol=1e-5, atol=1e-7)


def test_masked_classes_and_vanishing_probabilities_stay_finite():
    logits = torch.tensor([[0.0, 300.0, -math.inf], [0.0, -300.0, -math.inf]], requires_grad=True)
    entropy = view_marginal_entropy(logits)
    entropy.backward()
    assert entropy.item() == pytest.approx(math.log(2.0))
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_constant_logits_have_the_largest_entropy_and_no_gradient(classes):
    logits = torch.zeros(3, classes, requires_grad=True)
    entropy = view_marginal_entropy(logits)
    entropy.backward()
    assert entropy.item() == pytest.approx(math.log(classes), rel=1e-5)
    assert logits.grad.abs().max() < 1e-13


def test_half_precision_is_computed_in_float32():
    logits = torch.tensor([[0.0, 20.0], [0.0, 20.0]], dtype=torch.bfloat16)
    assert view_marginal_entropy(logits).dtype == torch.float32
    assert view_marginal_entropy(logits).item() == pytest.approx(20 * math.exp(-20.0), rel=0.06)
