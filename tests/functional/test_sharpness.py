import math

import pytest
import torch
from torch import nn

from tta.functional import gradient_norm, overall_norm, perturb_to_worst_case, restore_parameters


def parameters(*values: list[float]) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor(value)) for value in values]


def test_move_is_rho_along_the_gradient_over_all_tensors_together():
    first, second = parameters([1.0, 2.0], [3.0])
    first.grad, second.grad = torch.tensor([2.0, 0.0]), torch.tensor([1.5])
    before = perturb_to_worst_case([first, second], rho=0.5)
    torch.testing.assert_close(first.detach(), torch.tensor([1.0 + 0.5 * 2.0 / 2.5, 2.0]))
    torch.testing.assert_close(second.detach(), torch.tensor([3.0 + 0.5 * 1.5 / 2.5]))
    assert first.grad is None
    assert second.grad is None
    assert [value.tolist() for value in before] == [[1.0, 2.0], [3.0]]


def test_move_has_length_rho_whatever_the_gradient():
    for scale in (1e-6, 1.0, 1e6):
        group = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5))]
        for p in group:
            p.grad = scale * torch.randn_like(p)
        before = perturb_to_worst_case(group, rho=0.07)
        moved = math.sqrt(sum(float((p.detach() - b).square().sum()) for p, b in zip(group, before, strict=True)))
        assert moved == pytest.approx(0.07, rel=1e-4)


def test_restoring_is_exact_and_keeps_gradients():
    group = [nn.Parameter(torch.randn(50)), nn.Parameter(torch.randn(3, 7) * 1e4)]
    originals = [p.detach().clone() for p in group]
    for p in group:
        p.grad = torch.randn_like(p)
    before = perturb_to_worst_case(group, rho=0.3)
    assert not any(torch.equal(p, o) for p, o in zip(group, originals, strict=True))
    for p in group:
        p.grad = torch.ones_like(p)
    restore_parameters(group, before)
    assert all(torch.equal(p, o) for p, o in zip(group, originals, strict=True))
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in group)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_gradient_is_refused_with_nothing_moved(bad):
    first, second = parameters([1.0, 2.0], [3.0])
    first.grad, second.grad = torch.tensor([bad, 0.0]), torch.tensor([1.0])
    assert perturb_to_worst_case([first, second], rho=0.5) is None
    assert first.tolist() == [1.0, 2.0]
    assert second.tolist() == [3.0]


def test_zero_gradient_and_missing_gradient_stay():
    first, second = parameters([1.0, 2.0], [3.0])
    first.grad = torch.zeros(2)
    perturb_to_worst_case([first, second], rho=0.5)
    assert first.tolist() == [1.0, 2.0]
    assert second.tolist() == [3.0]
    third, fourth = parameters([1.0], [3.0])
    third.grad = torch.tensor([4.0])
    perturb_to_worst_case([third, fourth], rho=0.5)
    assert third.item() == pytest.approx(1.5)
    assert fourth.item() == 3.0


def test_norms():
    first, second = parameters([1.0, 2.0], [3.0])
    assert float(gradient_norm([first, second])) == 0.0
    first.grad = torch.tensor([3.0, 0.0])
    assert float(gradient_norm([first, second])) == 3.0
    second.grad = torch.tensor([4.0])
    assert float(gradient_norm([first, second])) == pytest.approx(5.0)
    assert float(overall_norm([torch.full((2, 2), 2.0), torch.tensor([3.0])])) == pytest.approx(5.0)
    second.grad = torch.tensor([math.nan])
    assert not torch.isfinite(gradient_norm([first, second]))
