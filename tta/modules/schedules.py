"""An optimiser together with its learning rate schedule."""

from typing import Any

from pytorch_lightning.cli import LRSchedulerCallable
from torch.optim import Optimizer


def with_schedule(optimizer: Optimizer, lr_scheduler: LRSchedulerCallable | None) -> Any:  # noqa: ANN401
    """What ``configure_optimizers`` returns: the optimiser, and its schedule if there is one.

    Args:
        optimizer: The optimiser.
        lr_scheduler: Maker of a schedule, stepped once an epoch; ``None`` for a constant learning rate.
    """
    if lr_scheduler is None:
        return optimizer
    return {"optimizer": optimizer, "lr_scheduler": lr_scheduler(optimizer)}
