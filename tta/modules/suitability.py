"""Does a method suit the run that it is put in?"""

from typing import Any

from pytorch_lightning import Trainer

from tta.adapters.base import Adapter
from tta.errors import InputError
from tta.modules.sharding import check_whole_parameters
from tta.resets import Never, PerBatch, PerDomain, ResetProtocol

PRECISIONS = ("32-true", "bf16-mixed")
"""Others scale gradients that methods rely on, or round statistics and small steps away."""


def check_frozen_evaluation(trainer: Trainer) -> None:
    """Refuse what no evaluation can do.

    Args:
        trainer: The trainer of the run.

    Raises:
        InputError: If the precision is not supported or there are several processes.
    """
    _check_precision(trainer)
    if trainer.world_size > 1:
        raise InputError("frozen evaluation runs in one process: use --trainer.devices 1")


def check_adaptation(adapter: Adapter, protocol: ResetProtocol, trainer: Trainer, stream: Any) -> None:  # noqa: ANN401
    """Refuse an adaptation that cannot work, before the first batch.

    Args:
        adapter: The method.
        protocol: When the run goes back to the source.
        trainer: The trainer of the run.
        stream: The datamodule; its ``batch_size`` and ``domain_sizes()`` are used if it has them.

    Raises:
        InputError: If precision, strategy, protocol, number of processes, batches or domains do not suit the method.
    """
    _check_precision(trainer)
    _check_strategy(trainer)
    _check_protocol(adapter, protocol, trainer.world_size)
    _check_sizes(adapter, protocol, stream)


def _check_precision(trainer: Trainer) -> None:
    if trainer.precision not in PRECISIONS:
        raise InputError(f"precision {trainer.precision} is not supported: use {' or '.join(PRECISIONS)}")


def _check_strategy(trainer: Trainer) -> None:
    check_whole_parameters(trainer, "tta adapt", "lets each process pass as often as it needs")
    if getattr(trainer.strategy, "_layer_sync", None) is not None:
        raise InputError(
            "sync_batchnorm waits for all processes at each pass, and here they do not pass equally often: leave it "
            "out; batch statistics are those of each process' share of a batch"
        )


def _check_protocol(adapter: Adapter, protocol: ResetProtocol, processes: int) -> None:
    facts, name = adapter.facts, type(adapter).__name__
    if facts.needs_target_data and (not isinstance(protocol, Never) or processes > 1):
        raise InputError(
            f"{name} sees the whole stream before it predicts: use protocol continual and one process, or its online "
            "mode"
        )
    if processes == 1:
        return
    if not facts.needs_gradients:
        raise InputError(f"{name} takes no gradient step, so processes share nothing: use --trainer.devices 1")
    if facts.one_process:
        raise InputError(f"{name} adapts to the images of one process alone: use --trainer.devices 1")
    if isinstance(protocol, PerDomain):
        raise InputError("protocol per_domain needs one process: shards cross domain boundaries at other times")
    if protocol.one_process:
        raise InputError(
            f"protocol {protocol.label} sees each process' share of the stream by itself: use --trainer.devices 1"
        )


def _check_sizes(adapter: Adapter, protocol: ResetProtocol, stream: Any) -> None:  # noqa: ANN401
    needed, name = adapter.facts.smallest_domain, type(adapter).__name__
    batch = getattr(stream, "batch_size", None)
    given = None if batch is None else protocol.stretch(batch)
    if given is not None and given < needed:
        gives = f"gives it batches of {batch}" if isinstance(protocol, PerBatch) else f"resets it after {given}"
        raise InputError(
            f"{name} learns from {needed} samples and protocol {protocol.label} {gives}: use a larger batch_size, "
            "or arguments of the method that let it learn from fewer"
        )
    sizes = getattr(stream, "domain_sizes", None)
    if not isinstance(protocol, PerDomain) or sizes is None:
        return
    for domain, size in sizes().items():
        if size < needed:
            raise InputError(
                f"{name} learns from {needed} samples of a domain and domain {domain!r} has {size}: use more "
                "samples, or arguments of the method that let it learn from fewer"
            )
