"""The last good states of an adapting model."""

import copy
from typing import Any

from torch import nn

from tta.adapters.base import Adapter, Updater
from tta.adapters.weight_copy import copied, write_back


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
        method = copy.deepcopy(adapter.state_dict())
        self.states.append({"model": copied(model), "method": method, "optimizer": updater.snapshot()})
        del self.states[: -self.kept]

    def go_back(self, model: nn.Module, adapter: Adapter, updater: Updater) -> bool:
        """Write the newest state back and remove it; ``False`` if there is none."""
        if not self.states:
            return False
        last = self.states.pop()
        write_back(model, last["model"])
        adapter.load_state_dict(last["method"])
        updater.restore(last["optimizer"])
        return True
