"""What the processes of a run share, and state that differs between them."""

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch.distributed
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tta.errors import InputError


def of_all_processes(trainer: Trainer, state: dict[str, Any]) -> list[dict[str, Any]]:
    """The states of all processes, in order of rank; every process must call it."""
    if trainer.world_size == 1:
        return [state]
    states: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(states, state)
    return states


def of_this_process(trainer: Trainer, states: list[dict[str, Any]]) -> dict[str, Any]:
    """This process' state again.

    Raises:
        InputError: If the run had another number of processes.
    """
    if len(states) != trainer.world_size:
        raise InputError(
            f"the run was of {len(states)} processes and is to go on with {trainer.world_size}: use the same "
            "--trainer.devices"
        )
    return states[trainer.global_rank]


def keep_own_buffers(module: nn.Module) -> None:
    """Leave every process its buffers, in whose place DDP else puts those of the first before a batch.

    Args:
        module: What DDP is going to wrap, with all its buffers. They must be equal, or meant to differ.
    """
    names = [name for name, _ in module.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, names)  # type: ignore[no-untyped-call]


def own_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Buffers of what a process itself saw, by name: those that parts of the module list in ``of_own_samples``."""
    return {
        f"{prefix}.{name}".removeprefix("."): part.get_buffer(name).detach().cpu()
        for prefix, part in module.named_modules()
        for name in getattr(part, "of_own_samples", ())
    }


def averaged_backward(module: LightningModule, loss: Tensor, parameters: Iterable[nn.Parameter]) -> None:
    """Accumulate gradients of a loss and average them over processes, whichever parameters took part.

    For modules in manual optimisation in which not every parameter takes part in every loss: the exchange that comes
    with DDP waits for all of them.

    Args:
        module: The module, in manual optimisation.
        loss: Scalar.
        parameters: Those whose gradients are averaged, in the same order on every process; all processes must call.
    """
    strategy = module.trainer.strategy
    with strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext():
        module.manual_backward(loss)
    average_gradients(module.trainer, parameters)


def average_gradients(trainer: Trainer, parameters: Iterable[nn.Parameter]) -> None:
    """Put the mean over processes in the place of every gradient; parameters without one are passed over.

    Args:
        trainer: The trainer of the run.
        parameters: In the same order on every process; all processes must call.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if trainer.world_size == 1 or not gradients:
        return
    together = torch.cat([gradient.flatten() for gradient in gradients])
    mean = torch.as_tensor(trainer.strategy.reduce(together, reduce_op="mean"))
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, part in zip(gradients, torch.split(mean, sizes), strict=True):
        gradient.copy_(part.view_as(gradient))
