"""Gradients compared."""

import pytest
import torch

from tta.functional import alignment_loss, gradient_correlation, standardised


def test_standardised_over_all_numbers_together():
    vector = standardised([torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])])
    assert torch.allclose(vector, torch.tensor([-1.0, 0.0, 1.0]))
    assert torch.equal(standardised([torch.ones(3)]), torch.zeros(3))


@pytest.mark.parametrize("seed", range(3))
def test_loss_is_twice_what_lacks_to_correlation_one(seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 50, generator=generator).double()
    b = b + seed * a
    parts = [a[:20].view(4, 5), a[20:]], [b[:20].view(4, 5), b[20:]]
    correlation = torch.corrcoef(torch.stack([a, b]))[0, 1]
    assert gradient_correlation(*parts) == pytest.approx(correlation.item(), abs=1e-12)
    assert alignment_loss(*parts).item() == pytest.approx(2 * (1 - correlation.item()) * 49 / 50, abs=1e-12)


def test_magnitude_does_not_count_and_sign_does():
    a = torch.randn(30)
    assert alignment_loss([5 * a + 2], [a]).item() == pytest.approx(0.0, abs=1e-6)
    assert gradient_correlation([-a], [a]).item() == pytest.approx(-1.0, abs=1e-6)
    assert gradient_correlation([torch.ones(30)], [a]).item() == 0.0


def test_only_the_learnt_gradient_gets_one():
    learnt, wanted = torch.randn(2, 8, requires_grad=True).unbind()
    gradients = torch.autograd.grad(alignment_loss([learnt], [wanted]), [learnt, wanted], allow_unused=True)
    assert gradients[0].abs().sum() > 0
    assert gradients[1] is None


def test_derivative_is_that_of_the_correlation_and_the_released_one_also_shortens():
    """With constant statistics a step down the loss shrinks the gradient; in full it keeps its length."""
    learnt, wanted = torch.randn(2, 8).double().unbind()
    learnt.requires_grad_()
    correlation = torch.corrcoef(torch.stack([learnt, wanted]))[0, 1]
    (expected,) = torch.autograd.grad(2 * (1 - correlation) * 7 / 8, learnt)
    (full,) = torch.autograd.grad(alignment_loss([learnt], [wanted]), learnt)
    assert torch.allclose(full, expected)
    centred = learnt.detach() - learnt.detach().mean()
    assert (full @ centred).item() == pytest.approx(0.0, abs=1e-12)
    (released,) = torch.autograd.grad(alignment_loss([learnt], [wanted], constant_statistics=True), learnt)
    difference = standardised([learnt.detach()]) - standardised([wanted])
    assert torch.allclose(released, 2 * difference / 8 / learnt.detach().std())
    assert (released @ centred).item() == pytest.approx(2 * (1 - correlation.item()) * 7 / 8, abs=1e-12)
