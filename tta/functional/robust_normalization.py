"""Batch normalisation with statistics that follow the stream slowly and are used at once (RoTTA's robust BN)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from tta.functional.normalization import batch_norm_layers


@contextmanager
def robust_batch_statistics(model: nn.Module, batch_weight: float) -> Iterator[None]:
    r"""Within the context, running statistics become :math:`(1-a)\,\text{running} + a\,\text{batch}` and normalise.

    The variance of the batch is the biased one. Gradients flow through the share that the batch has in the statistics.
    Works on the buffers that a layer has at the time of its forward pass, so that a model run with other buffers
    (``functional_call``) moves those. Statistics that are not finite are used but never kept.

    Args:
        model: The model, its batch normalisation layers in eval mode. Layers without running statistics are left out.
        batch_weight: :math:`a`, share of the current batch, in ``[0, 1]``.
    """
    handles = [handle for _, layer in batch_norm_layers(model) for handle in _normalize_before(layer, batch_weight)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def moved_statistics(inputs: Tensor, mean: Tensor, variance: Tensor, batch_weight: float) -> tuple[Tensor, Tensor]:
    """Running statistics after a batch.

    Args:
        inputs: Activations, shape ``(N, C, ...)``.
        mean: Running mean, shape ``(C,)``.
        variance: Running variance, shape ``(C,)``.
        batch_weight: Share of the batch, in ``[0, 1]``.

    Returns:
        New mean and variance, each of shape ``(C,)``, float32, on the graph of ``inputs``.
    """
    axes = [axis for axis in range(inputs.dim()) if axis != 1]
    batch_variance, batch_mean = torch.var_mean(inputs.float(), dim=axes, correction=0)
    return mean.float().lerp(batch_mean, batch_weight), variance.float().lerp(batch_variance, batch_weight)


def _normalize_before(layer: _BatchNorm, batch_weight: float) -> tuple[RemovableHandle, ...]:
    """Hand the layer normalised inputs, and statistics that leave them as they are.

    So the layer's own forward still does the rest, such as a fused activation; the kernel of batch normalisation gives
    no gradient for running statistics.
    """
    kept: list[tuple[Tensor, Tensor]] = []

    def normalize(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        running_mean, running_variance = layer.running_mean, layer.running_var
        if running_mean is None or running_variance is None:
            return None
        inputs = args[0]
        mean, variance = moved_statistics(inputs, running_mean, running_variance, batch_weight)
        if bool(torch.isfinite(mean).all()) and bool(torch.isfinite(variance).all()):
            with torch.no_grad():
                running_mean.copy_(mean)
                running_variance.copy_(variance)
        kept.append((running_mean, running_variance))
        layer.running_mean = torch.zeros_like(running_mean)
        layer.running_var = torch.full_like(running_variance, 1.0 - layer.eps)
        shape = (1, -1, *[1] * (inputs.dim() - 2))
        normalized = (inputs.float() - mean.view(shape)) * (variance.view(shape) + layer.eps).rsqrt()
        return normalized.to(inputs.dtype), *args[1:]

    def restore(module: nn.Module, args: tuple[Any, ...], output: Tensor | None) -> None:
        if kept:
            layer.running_mean, layer.running_var = kept.pop()

    return layer.register_forward_pre_hook(normalize), layer.register_forward_hook(restore, always_call=True)
