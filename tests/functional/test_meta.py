"""The step that is differentiated through."""

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tta.functional import distillation_step, meta_distillation_loss


def line(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
    return x * parameters["w"]


def test_step_by_hand() -> None:
    w = torch.tensor([2.0], requires_grad=True)
    x, target = torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [0.0]])
    # mean((2 - 1)^2, (6 - 0)^2) has derivative (2 * 1 * 1 + 2 * 6 * 3) / 2 = 19 at w = 2.
    after = distillation_step(line, {"w": w}, x, target, lr=0.1)
    assert after["w"].item() == pytest.approx(2.0 - 1.9)


def test_step_depends_on_start_and_target() -> None:
    w = torch.tensor([2.0], requires_grad=True)
    x, target = torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [0.0]], requires_grad=True)
    after = distillation_step(line, {"w": w}, x, target, lr=0.1)["w"]
    to_start, to_target = torch.autograd.grad(after.sum(), [w, target])
    # w' = w - 0.1 * sum(x * (x w - t)): dw'/dw = 1 - 0.1 * sum(x^2) = 0, dw'/dt = 0.1 * x.
    assert to_start.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.allclose(to_target, torch.tensor([[0.1], [0.3]]))


def test_parameters_that_features_do_not_use_stay() -> None:
    values = {"w": torch.ones(1, requires_grad=True), "idle": torch.ones(3, requires_grad=True)}
    after = distillation_step(line, values, torch.ones(2, 1), torch.zeros(2, 1), lr=0.5)
    assert torch.equal(after["idle"], torch.ones(3))
    assert after["w"].item() == 0.0


def network(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
    return torch.tanh(x @ parameters["first"]) @ parameters["second"]


def test_meta_gradient_equals_finite_differences() -> None:
    """To the student, before the step, and to what makes the target, through a mixed second derivative."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    first, second, head, aggregator = draw(3, 4), draw(4, 2), draw(2, 3), draw(5, 2)
    support, query, seen = draw(6, 3), draw(7, 3), draw(6, 5)
    labels = torch.randint(3, (7,), generator=generator)

    def loss(first: Tensor, second: Tensor, head: Tensor, aggregator: Tensor) -> Tensor:
        return meta_distillation_loss(
            network,
            lambda parameters, x: network(parameters, x) @ head,
            {"first": first, "second": second},
            (support, torch.tanh(seen @ aggregator)),
            (query, labels),
            lr=0.7,
        )

    inputs = tuple(value.requires_grad_() for value in (first, second, head, aggregator))
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-7)
    gradients = torch.autograd.grad(loss(*inputs), inputs)
    assert all(bool((gradient != 0).all()) for gradient in gradients)


def test_meta_loss_is_cross_entropy_after_the_step() -> None:
    w = torch.tensor([2.0], requires_grad=True)
    x, target = torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [0.0]])

    def logits(parameters: Mapping[str, Tensor], images: Tensor) -> Tensor:
        return torch.cat([line(parameters, images), torch.zeros_like(images)], dim=1)

    query = torch.tensor([[5.0]]), torch.tensor([0])
    loss = meta_distillation_loss(line, logits, {"w": w}, (x, target), query, lr=0.1)
    expected = F.cross_entropy(torch.tensor([[5.0 * 0.1, 0.0]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
