"""Which statistics batch normalisation uses.

Two ways, both blind to the concrete class (``nn.BatchNorm1d/2d/3d``, ``nn.SyncBatchNorm``, timm's fused
``BatchNormAct2d``) and both keeping every key of the state dict, unlike the common ``running_mean = None``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle


def batch_norm_layers(model: nn.Module) -> list[tuple[str, _BatchNorm]]:
    """Named batch normalisation layers of a model, in registration order."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]


def batch_statistics_only(model: nn.Module) -> None:
    """Let every batch normalisation layer normalise with the statistics of the current batch.

    Running statistics are neither used nor changed, and stay in the state dict. Idempotent. A later ``model.eval()``
    goes back to running statistics, so hosts call ``Adapter.prepare`` again after it.
    """
    for _, layer in batch_norm_layers(model):
        layer.train()
        layer.track_running_stats = False


def batch_statistics(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance per channel.

    Args:
        inputs: Activations, shape ``(N, C, ...)``.

    Returns:
        Mean and variance, each of shape ``(C,)``, float32. The variance is unbiased, as in PyTorch's running
        variance, except for a single value per channel, where it is 0.
    """
    axes = [axis for axis in range(inputs.dim()) if axis != 1]
    values_per_channel = inputs.numel() // inputs.shape[1]
    variance, mean = torch.var_mean(inputs.float(), dim=axes, correction=int(values_per_channel > 1))
    return mean, variance


@contextmanager
def mixed_batch_statistics(model: nn.Module, batch_weight: float, accumulate: bool) -> Iterator[None]:
    r"""Within the context, normalise with :math:`(1-a)\,\text{running} + a\,\text{batch}` statistics.

    Works by swapping the running buffers of each layer for the time of its own forward, so that layer classes with a
    fused activation work too. Layers must be in eval mode. No gradient flows through the statistics.

    Args:
        model: The model; its batch normalisation layers are used in eval mode.
        batch_weight: :math:`a`, share of the current batch, in ``[0, 1]``.
        accumulate: Whether the mixture is written back to the running buffers (an exponential moving average with
            momentum :math:`a`); a mixture that is not finite is never written.
    """
    handles = [
        handle
        for _, layer in batch_norm_layers(model)
        for handle in _swap_for_one_forward(layer, batch_weight, accumulate)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _swap_for_one_forward(layer: _BatchNorm, batch_weight: float, accumulate: bool) -> tuple[RemovableHandle, ...]:
    running_mean, running_variance = layer.running_mean, layer.running_var
    if running_mean is None or running_variance is None:
        return ()

    def mix(module: nn.Module, args: tuple[Any, ...]) -> None:
        mean, variance = batch_statistics(args[0].detach())
        layer.running_mean = torch.lerp(running_mean, mean.to(running_mean.dtype), batch_weight)
        layer.running_var = torch.lerp(running_variance, variance.to(running_variance.dtype), batch_weight)

    def restore(module: nn.Module, args: tuple[Any, ...], output: Tensor | None) -> None:
        mean, variance = layer.running_mean, layer.running_var
        layer.running_mean, layer.running_var = running_mean, running_variance
        if not accumulate or output is None or mean is None or variance is None:
            return
        if bool(torch.isfinite(mean).all()) and bool(torch.isfinite(variance).all()):
            running_mean.copy_(mean)
            running_variance.copy_(variance)

    return layer.register_forward_pre_hook(mix), layer.register_forward_hook(restore, always_call=True)
