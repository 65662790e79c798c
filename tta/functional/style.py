"""Style of activations: their mean and standard deviation over positions, mixed between samples."""

import math

import torch
from torch import Tensor

from tta.errors import InputError

EPSILON = 1e-6


def style(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel of every sample, over its positions; no gradient flows into them.

    Args:
        activations: Maps ``(B, C, H, W)`` with at least two pixels, or tokens ``(B, N, D)`` with ``N >= 2``, whose
            positions are the tokens; any floating dtype.

    Returns:
        Mean, and the square root of the unbiased variance plus 1e-6: float32, ``(B, C, 1, 1)`` or ``(B, 1, D)``.

    Raises:
        InputError: If the activations have another number of axes, or one position only.
    """
    if activations.dim() not in (3, 4):
        raise InputError(
            f"activations of shape {tuple(activations.shape)} have no style: take a block that gives maps (B, C, H, W) "
            "or tokens (B, N, D)"
        )
    positions = (1,) if activations.dim() == 3 else (2, 3)
    if math.prod(activations.shape[axis] for axis in positions) < 2:
        raise InputError(
            f"activations of shape {tuple(activations.shape)} have one position and so no style: take an earlier block"
        )
    values = activations.detach().float()
    variance, mean = torch.var_mean(values, dim=positions, keepdim=True)
    return mean, (variance + EPSILON).sqrt()


def mix_style(activations: Tensor, share: Tensor, other: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    r"""MixStyle: give every sample a mixture of its own style and another's.

    :math:`\sigma_{mix} (x - \mu) / \sigma + \mu_{mix}` with :math:`\mu_{mix} = \lambda \mu + (1 - \lambda) \mu'` and
    :math:`\sigma_{mix}` likewise. Statistics count as constants. Computed in float32.

    Args:
        activations: ``(B, C, H, W)`` or ``(B, N, D)``, as in :func:`style`.
        share: :math:`\lambda` of every sample, the share of its own style, ``(B,)``, in ``[0, 1]``.
        other: Which sample of the batch lends its style to each, int64, ``(B,)``; or means and standard deviations
            from elsewhere, each ``(B, C)``.

    Returns:
        Activations of the same shape and dtype.

    Raises:
        InputError: As :func:`style`.

    References:
        Domain Generalization with MixStyle, ICLR 2021, https://arxiv.org/abs/2104.02008.
    """
    mean, std = style(activations)
    if isinstance(other, Tensor):
        other_mean, other_std = mean[other], std[other]
    else:
        other_mean, other_std = (part.to(mean).view_as(mean) for part in other)
    own = share.to(mean).view(-1, *[1] * (activations.dim() - 1))
    mixed_mean, mixed_std = own * mean + (1 - own) * other_mean, own * std + (1 - own) * other_std
    return ((activations.float() - mean) / std * mixed_std + mixed_mean).to(activations.dtype)
