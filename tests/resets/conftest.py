"""Methods that do as they are told, so that what a protocol does to them can be computed by hand."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.adapters import Adapter, AdapterOutput, Facts, ResetScope, Updater
from tta.resets import ResetProtocol


class Walk(Adapter):
    """Moves every weight by minus one a batch, at learning rate 1; asks for what it is told to, batch by batch."""

    facts = Facts(needs_gradients=True, steps_per_batch=1, backwards=1)
    seen: Tensor

    def __init__(self, asks: Sequence[ResetScope | None] = (), gradients: Sequence[Tensor | None] = ()) -> None:
        super().__init__()
        self.asks = list(asks)
        self.gradients = list(gradients)
        self.register_buffer("seen", torch.tensor(0))

    def prepare(self, model: nn.Module) -> None:
        model.requires_grad_(True)

    def reset(self) -> None:
        self.seen.zero_()

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        gradient = self.gradients.pop(0) if self.gradients else torch.ones(())
        logits = model(x).detach()
        self.seen += 1
        if gradient is not None:
            with torch.enable_grad():
                updater.backward(sum((parameter * gradient).sum() for parameter in model.parameters()))
            updater.step()
        return AdapterOutput(logits, reset=self.asks.pop(0) if self.asks else None)


class Scores(Adapter):
    """Predicts what the images say: rows of logits."""

    def prepare(self, model: nn.Module) -> None:
        model.requires_grad_(False)

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        return AdapterOutput(self.predict(model, x))


@pytest.fixture
def walk() -> Callable[..., tta.OnlineModel]:
    """Maker of a linear layer, zeros at the source, walking under a protocol."""

    def make(
        protocol: str | ResetProtocol, size: int = 3, momentum: float = 0.0, bias: bool = False, **arguments: Any
    ) -> tta.OnlineModel:
        model = nn.Linear(2, size, bias=bias)
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        return tta.online(model, Walk(**arguments), resets=protocol, lr=1.0, momentum=momentum)

    return make


@pytest.fixture
def scores() -> Callable[[ResetProtocol], tta.OnlineModel]:
    """Maker of a model whose logits are its input."""
    return lambda protocol: tta.online(nn.Identity(), Scores(), resets=protocol)
