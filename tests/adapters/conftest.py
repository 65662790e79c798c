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

Prepared = tuple[nn.Module, dict[str, Any]]

COMPANIONS: dict[str, Callable[[nn.Module, str], Prepared]] = {}
"""For methods that need something trained: makes, of a plain network and its kind, the network that the method takes
and the constructor arguments that carry its companion."""


def companion(name: str, kind: str, model: nn.Module) -> Prepared:
    return COMPANIONS[name](model, kind) if name in COMPANIONS else (model, {})


@pytest.fixture
def build(trained: Callable[[str], nn.Module], digits: tuple[Tensor, Tensor]) -> Callable[..., tta.OnlineModel]:
    """Maker of an online model of a trained network, with source images where the method wants some."""

    def make(name: str, kind: str, model: nn.Module | None = None, **arguments: Any) -> tta.OnlineModel:
        model, own = companion(name, kind, trained(kind) if model is None else model)
        arguments = {"lr": 0.02, **BASE.get(name, {}), **own, **arguments}
        arguments.setdefault("source", digits[0][:16].split(8))
        return tta.online(model, name, **arguments)

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
                "adapter": [dict(online.adapter.named_parameters()), dict(online.adapter.named_buffers())],
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
        gradients = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
        for total, gradient in zip(self.sums, gradients, strict=True):
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
