"""The last good states of an adapting model."""

from typing import Any

import torch
from torch import Tensor, nn

from tta.adapters.base import Adapter, Updater
from tta.adapters.weight_copy import changeable


class Snapshots:
    """A stack of states of model, method and optimiser, of which the newest are kept.

    Args:
        kept: How many, at least 1.
    """

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.states: list[dict[str, Any]] = []

    def take(self, model: nn.Module, adapter: Adapter, updater: Updater) -> None:
        """Add the present state."""
        weights = {name: tensor.detach().clone() for name, tensor in changeable(model)}
        method = {name: _copied(value) for name, value in adapter.state_dict().items()}
        self.states.append({"model": weights, "method": method, "optimizer": updater.snapshot()})
        del self.states[: -self.kept]

    @torch.no_grad()
    def go_back(self, model: nn.Module, adapter: Adapter, updater: Updater) -> bool:
        """Write the newest state back and remove it; ``False`` if there is none."""
        if not self.states:
            return False
        last = self.states.pop()
        targets = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for name, value in last["model"].items():
            targets[name].copy_(value)
        adapter.load_state_dict(last["method"])
        updater.restore(last["optimizer"])
        return True


def _copied(value: Any) -> Any:  # noqa: ANN401  a method may keep plain types besides tensors
    return value.detach().clone() if isinstance(value, Tensor) else value
