"""Parameters shared out over processes, for networks that outgrow a device."""

from collections.abc import Iterator
from typing import cast

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from tta.errors import InputError

SHARDING = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)
"""Strategies under which a process holds a part of the parameters."""


def check_whole_parameters(trainer: Trainer, who: str, why: str) -> None:
    """Refuse strategies under which a process holds a part of the parameters.

    Args:
        trainer: The trainer of the run.
        who: What needs them whole.
        why: For what.

    Raises:
        InputError: If the strategy is one of these.
    """
    if isinstance(trainer.strategy, SHARDING):
        raise InputError(
            f"{who} {why} and {type(trainer.strategy).__name__} leaves each process a part of the parameters: use "
            "--trainer.strategy ddp, or one device"
        )


def shard(network: nn.Module, module: LightningModule, *methods: str) -> None:
    """Share the parameters of a network out over processes, if the trainer's strategy is ``ModelParallelStrategy``.

    Each part of an outermost ``nn.Sequential`` or ``nn.ModuleList``, such as a transformer's block, is gathered for the
    time of its own pass; what is left, for that of the whole network. Under any other strategy nothing happens.

    Args:
        network: The network, whole on every process; changed in place. Again is as good as once.
        module: What trains it; its trainer says how.
        methods: Names of methods by which the network is called besides ``forward``.

    Raises:
        InputError: If the strategy is to split layers too.
    """
    if not isinstance(module.trainer.strategy, ModelParallelStrategy) or isinstance(network, FSDPModule):
        return
    mesh = module.trainer.strategy.device_mesh
    if mesh["tensor_parallel"].size() > 1:
        raise InputError(
            f"tensor_parallel_size={mesh['tensor_parallel'].size()}: layers are not split; set data_parallel_size to "
            f"the number of processes, {module.trainer.world_size}, and tensor_parallel_size to 1"
        )
    for part in (*_parts(network), network):
        fully_shard(part, mesh=mesh["data_parallel"])
    for method in methods:
        register_fsdp_forward_method(network, method)


def _parts(network: nn.Module) -> Iterator[nn.Module]:
    for child in network.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from (part for part in child if any(True for _ in part.parameters()))
        else:
            yield from _parts(child)


def whole_state(network: nn.Module) -> dict[str, Tensor]:
    """The state dict of a network, its parameters gathered on the CPU where they are shared out.

    Args:
        network: The network. Where it is shared out, all processes must call.

    Returns:
        Tensors by name; on all processes but the first none where parameters are shared out.
    """
    if not isinstance(network, FSDPModule):
        return network.state_dict()
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return cast(dict[str, Tensor], get_model_state_dict(network, options=options))
