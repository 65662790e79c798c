"""The updater of the Lightning host."""

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from tta.updater import GuardedUpdater


class LightningUpdater(GuardedUpdater):
    """Backward and step through Lightning, so that its precision, processes and callbacks take part.

    Args:
        module: The host, in manual optimisation.
    """

    def __init__(self, module: LightningModule) -> None:
        super().__init__()
        self._module = module

    @property
    def optimizer(self) -> Optimizer:
        """The plain optimiser behind Lightning's."""
        optimizer = self._module.optimizers(use_pl_optimizer=False)
        if not isinstance(optimizer, Optimizer):
            raise RuntimeError("a method that declares needs_gradients=False asked for a step")
        return optimizer

    @property
    def has_optimizer(self) -> bool:
        """Whether the host configured one."""
        return isinstance(self._module.optimizers(use_pl_optimizer=False), Optimizer)

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients, averaged over processes."""
        self._module.manual_backward(loss)

    def optimizer_step(self) -> None:
        """Step through Lightning's wrapper, which calls its hooks."""
        self._module.optimizers().step()  # type: ignore[union-attr]

    def any(self, flag: bool) -> bool:
        """Logical or over processes."""
        if self._module.trainer.world_size == 1:
            return flag
        return self._module.trainer.strategy.reduce_boolean_decision(flag, all=False)

    def mean(self, value: Tensor) -> Tensor:
        """Mean over processes."""
        if self._module.trainer.world_size == 1:
            return value
        reduced = self._module.trainer.strategy.reduce(value.clone(), reduce_op="mean")
        return torch.as_tensor(reduced, device=value.device)
