"""Ways to gradients and steps that let nothing non-finite through."""

import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tta.functional.gradients import gradient_norm


class GuardedUpdater(ABC):
    """An ``Updater`` that lets no non-finite gradient through and remembers what it did.

    Attributes:
        gradient_norm: L2 norm of the gradient of the last step taken or skipped; ``None`` before any.
        skipped_steps: Steps skipped because a gradient was not finite.
        keep_squared_gradients: Whether to keep those of each step.
        squared_gradients: If asked to, squared gradients of the last step taken, by parameter; whoever reads them
            empties it.
    """

    def __init__(self) -> None:
        self.gradient_norm: Tensor | None = None
        self.skipped_steps = 0
        self.keep_squared_gradients = False
        self.squared_gradients: dict[nn.Parameter, Tensor] = {}

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients."""

    @abstractmethod
    def optimizer_step(self) -> None:
        """Step the optimiser, gradients being finite."""

    @property
    @abstractmethod
    def optimizer(self) -> Optimizer:
        """The optimiser behind it."""

    def step(self) -> bool:
        """Step and clear gradients; skip, and return ``False``, when a gradient is not finite."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.gradient_norm = gradient_norm(parameters)
        finite = bool(torch.isfinite(self.gradient_norm))
        if finite and self.keep_squared_gradients:
            self.squared_gradients = {p: p.grad.float().square() for p in parameters if p.grad is not None}
        if finite:
            self.optimizer_step()
        else:
            self.skipped_steps += 1
        self.discard()
        return finite

    def discard(self) -> None:
        """Clear gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    @property
    @abstractmethod
    def has_optimizer(self) -> bool:
        """Whether there is an optimiser: methods that take no step have none."""

    def snapshot(self) -> dict[str, Any]:
        """A copy of the optimiser's state; empty without an optimiser."""
        return copy.deepcopy(self.optimizer.state_dict()) if self.has_optimizer else {}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Take back what :meth:`snapshot` gave; it stays as it is, whatever steps follow."""
        if self.has_optimizer:
            # Optimisers take over the tensors that they are given, and change them in place.
            self.optimizer.load_state_dict(copy.deepcopy(snapshot))

    def any(self, flag: bool) -> bool:
        """One process: the flag itself."""
        return flag

    def mean(self, value: Tensor) -> Tensor:
        """One process: the value itself."""
        return value


class TorchUpdater(GuardedUpdater):
    """The updater of a plain PyTorch loop.

    Args:
        optimizer: Optimiser over the adapter's trainable parameters; ``None`` for methods that take no step.
    """

    def __init__(self, optimizer: Optimizer | None) -> None:
        super().__init__()
        self._optimizer = optimizer

    @property
    def optimizer(self) -> Optimizer:
        """The optimiser."""
        if self._optimizer is None:
            raise RuntimeError("a method that declares needs_gradients=False asked for a step")
        return self._optimizer

    @property
    def has_optimizer(self) -> bool:
        """Whether it was given one."""
        return self._optimizer is not None

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients."""
        loss.backward()  # type: ignore[no-untyped-call]

    def optimizer_step(self) -> None:
        """Step the optimiser."""
        self.optimizer.step()
