import math

import pytest
import torch

from tta.functional.soft_targets import reverse_cross_entropy, soft_cross_entropy

STUDENT = torch.tensor([[0.0, math.log(3.0)], [1.0, -1.0]])
TEACHER = torch.tensor([[math.log(4.0), 0.0], [1.0, -1.0]])
"""Of the first row: p = (1/4, 3/4), q = (4/5, 1/5)."""


def test_values_by_hand():
    forward, backward = soft_cross_entropy(STUDENT, TEACHER), reverse_cross_entropy(STUDENT, TEACHER)
    assert float(forward[0]) == pytest.approx(-0.8 * math.log(0.25) - 0.2 * math.log(0.75), rel=1e-6)
    assert float(backward[0]) == pytest.approx(-0.25 * math.log(0.8) - 0.75 * math.log(0.2), rel=1e-6)
    torch.testing.assert_close(forward[1], backward[1])


def test_gradients_are_those_of_the_formulas():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(5, 4, generator=generator, requires_grad=True)
    teacher, weights = torch.randn(5, 4, generator=generator), torch.rand(5, generator=generator)
    q = teacher.softmax(1)
    plain = {
        soft_cross_entropy: -(q * student.log_softmax(1)).sum(1),
        reverse_cross_entropy: -(student.softmax(1) * q.log()).sum(1),
    }
    for loss, expected in plain.items():
        values = loss(student, teacher)
        torch.testing.assert_close(values, expected)
        gradients = [torch.autograd.grad((losses * weights).sum(), student)[0] for losses in (values, expected)]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_gradient_is_exactly_zero_where_nothing_is_to_be_learnt(classes):
    constant = torch.full((3, classes), 0.7, requires_grad=True)
    (soft_cross_entropy(constant, constant) + reverse_cross_entropy(constant, constant)).sum().backward()
    assert torch.equal(constant.grad, torch.zeros(3, classes))
    agreed = torch.randn(3, classes, generator=torch.Generator().manual_seed(0)).requires_grad_()
    soft_cross_entropy(agreed, agreed.detach().clone()).sum().backward()
    assert torch.equal(agreed.grad, torch.zeros(3, classes))


@pytest.mark.parametrize("loss", [soft_cross_entropy, reverse_cross_entropy])
def test_masked_classes_and_half_precision(loss):
    masked = torch.tensor([[1.0, 0.0, -math.inf]], requires_grad=True)
    teacher = torch.tensor([[0.0, 2.0, -math.inf]])
    value = loss(masked, teacher)
    torch.testing.assert_close(value, loss(masked[:, :2], teacher[:, :2]))
    value.sum().backward()
    assert torch.isfinite(masked.grad).all()
    assert loss(STUDENT.bfloat16(), TEACHER.bfloat16()).dtype == torch.float32
