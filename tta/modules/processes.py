"""State that differs between the processes of a run."""

from typing import Any

import torch.distributed
from pytorch_lightning import Trainer

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
