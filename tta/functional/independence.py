"""Whether a network treats the samples of a batch independently of each other."""

import torch
from torch import Tensor, nn

from tta.functional.normalization import batch_norm_layers


def uses_batch_statistics(model: nn.Module) -> bool:
    """Whether a batch normalisation layer normalises with the statistics of the batch, in the model's present modes."""
    return any(layer.training or layer.running_mean is None for _, layer in batch_norm_layers(model))


def same_logits(one: Tensor, other: Tensor) -> bool:
    """Whether two passes gave the same logits but for rounding.

    Args:
        one: Logits, any floating dtype.
        other: Logits, of the same dtype.

    Returns:
        Whether shapes are equal and the largest difference is at most a thousandth of the largest logit, 3 % in half
        precision. Logits that are not finite are never the same.
    """
    tolerance = 1e-3 if one.dtype in (torch.float32, torch.float64) else 3e-2
    return one.shape == other.shape and bool((one - other).abs().max() <= tolerance * one.abs().max())
