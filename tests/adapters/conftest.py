"""Online models for the tests of the methods."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tta

BASE: dict[str, dict[str, Any]] = {
    "eata": {"margin": 0.97, "redundancy": 0.95, "fisher_alpha": 20.0},
    "sar": {"margin": 0.97, "reset_threshold": 0.0},
}
"""Hyper-parameters under which a method learns from most samples of the small stream."""


@pytest.fixture
def build(trained: Callable[[str], nn.Module], digits: tuple[Tensor, Tensor]) -> Callable[..., tta.OnlineModel]:
    """Maker of an online model of a trained network, with source images where the method wants some."""

    def make(name: str, kind: str, model: nn.Module | None = None, **arguments: Any) -> tta.OnlineModel:
        arguments = {"lr": 0.02, **BASE.get(name, {}), **arguments}
        arguments.setdefault("source", digits[0][:16].split(8))
        return tta.online(trained(kind) if model is None else model, name, **arguments)

    return make


@pytest.fixture
def everything(flat: Callable[[Any], dict[str, Any]]) -> Callable[[tta.OnlineModel], dict[str, Any]]:
    """All that a stream may change: weights, buffers (also those not in the state dict), optimiser, method state."""

    def state(online: tta.OnlineModel) -> dict[str, Any]:
        return flat(
            {
                "weights": dict(online.model.named_parameters()),
                "buffers": dict(online.model.named_buffers()),
                "optimizer": online.optimizer.state_dict() if online.optimizer is not None else None,
                "adapter": dict(online.adapter.named_buffers()),
                "saved": online.state_dict(),
            }
        )

    return state


class PrivateGradients:
    """An updater that keeps gradients to itself until the step: nobody can read ``.grad`` in between."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.discard()

    def backward(self, loss: Tensor) -> None:
        for total, gradient in zip(self.sums, torch.autograd.grad(loss, self.parameters), strict=True):
            total += gradient

    def step(self) -> bool:
        for parameter, total in zip(self.parameters, self.sums, strict=True):
            parameter.grad = total
        self.optimizer.step()
        self.discard()
        return True

    def discard(self) -> None:
        self.optimizer.zero_grad()
        self.sums = [torch.zeros_like(parameter) for parameter in self.parameters]

    def any(self, flag: bool) -> bool:
        return flag

    def mean(self, value: Tensor) -> Tensor:
        return value


@pytest.fixture
def private_gradients() -> type[PrivateGradients]:
    return PrivateGradients
