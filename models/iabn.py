"""Instance-aware batch normalisation: normalise an image by its own statistics where they are far from the batch's."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tta.errors import InputError


class InstanceAwareBatchNorm2d(nn.BatchNorm2d):
    r"""Batch normalisation whose statistics are corrected for every image and channel.

    Let :math:`\bar\mu, \bar\sigma^2` be the statistics that batch normalisation would use, :math:`\mu_i, \sigma_i^2`
    those of one image over its :math:`L = HW` values of a channel, and :math:`\psi(d; t)` the soft shrinkage of ``d``
    by ``t``. An image is normalised with

    .. math::
        \bar\mu + \psi(\mu_i - \bar\mu;\; k\,s_\mu), \quad
        \max(0, \bar\sigma^2 + \psi(\sigma_i^2 - \bar\sigma^2;\; k\,s_{\sigma^2})), \quad
        s_\mu = \sqrt{\bar\sigma^2 / L}, \quad s_{\sigma^2} = \bar\sigma^2 \sqrt{2 / (L - 1)}.

    What an image differs by beyond ``k`` standard errors is taken as a shift and normalised away; the rest is noise
    of a finite image and left to the batch. Without differences beyond it this is batch normalisation, in eval mode to
    rounding; in training its variance is the unbiased one, as in the authors' code. In eval mode an image's output
    does not depend on the others of the batch. A channel of one value (``L = 1``) has no variance of its own: there
    it is batch normalisation too. Identical images, or an image of one colour, give finite outputs.

    Keys of the state dict are those of ``nn.BatchNorm2d``. Statistics are computed in float32 at least. Lightning's
    ``sync_batchnorm`` would turn it into plain batch normalisation.

    Args:
        num_features: Channels.
        eps: Added to variances, in the standard errors too, as in the authors' code.
        momentum: Share of a training batch in the running statistics.
        affine: Learn a weight and a bias per channel.
        track_running_stats: Keep running statistics.
        k: Width of the shrinkage in standard errors, at least 0; 4 is published, 0 is instance normalisation.

    Raises:
        InputError: If ``k`` is negative.

    References:
        NOTE: Robust Continual Test-time Adaptation Against Temporal Correlation, NeurIPS 2022, section 3.1,
        https://arxiv.org/abs/2208.05117.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        k: float = 4.0,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        self.k = checked_width(k)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the base class' name
        """Normalised activations, same shape ``(B, C, H, W)`` and dtype.

        Raises:
            ValueError: In training, for a single value per channel, as batch normalisation does.
        """
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        mean, variance = (statistic.view(1, -1, 1, 1) for statistic in self._common_statistics(x))
        values = x.shape[2] * x.shape[3]
        if values > 1:
            own_variance, own_mean = torch.var_mean(x, dim=(2, 3), keepdim=True)
            spread = variance + self.eps
            mean = mean + _shrink(own_mean - mean, self.k * (spread / values).sqrt())
            variance = variance + _shrink(own_variance - variance, self.k * spread * math.sqrt(2 / (values - 1)))
            variance = F.relu(variance)
        normalised = (x - mean) * (variance + self.eps).rsqrt()
        if self.affine:
            normalised = normalised * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return normalised.to(input.dtype)

    def extra_repr(self) -> str:
        """Arguments in words."""
        return f"{super().extra_repr()}, k={self.k}"  # type: ignore[no-untyped-call]

    def _common_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and unbiased variance per channel: the running ones, or in training the batch's, which move them."""
        if not self.training and self.running_mean is not None and self.running_var is not None:
            return self.running_mean, self.running_var
        with torch.no_grad():
            super().forward(x)
        variance, mean = torch.var_mean(x, dim=(0, 2, 3))
        return mean, variance


def with_iabn(backbone: nn.Module, k: float = 4.0) -> nn.Module:
    """Turn every ``nn.BatchNorm2d`` of a network into instance-aware batch normalisation, in place.

    Parameters, running statistics and keys of the state dict stay, so weights go back and forth. The network should
    then be trained, or trained on, with it: weights of plain batch normalisation lose accuracy.

    Args:
        backbone: Classifier with batch normalisation over images.
        k: Width of the shrinkage in standard errors, at least 0; 4 is published.

    Returns:
        The same network.

    Raises:
        InputError: If ``k`` is negative, or the network has no ``nn.BatchNorm2d`` or another batch normalisation.
    """
    checked_width(k)
    found = 0
    for name, parent in list(backbone.named_modules()):
        for child_name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm2d) and type(layer) in (nn.BatchNorm2d, InstanceAwareBatchNorm2d):
                setattr(parent, child_name, _converted(layer, k))
                found += 1
            elif isinstance(layer, _BatchNorm):
                raise InputError(
                    f"{name + '.' if name else ''}{child_name} is a {type(layer).__name__}: with_iabn converts plain "
                    "nn.BatchNorm2d only; use a network without fused or synchronised batch normalisation"
                )
    if not found:
        raise InputError(
            f"{type(backbone).__name__} has no nn.BatchNorm2d for with_iabn to convert: use a network with some"
        )
    return backbone


def checked_width(k: float) -> float:
    """The width of the shrinkage.

    Raises:
        InputError: If it is negative or not a number.
    """
    if not k >= 0.0:
        raise InputError(f"k={k}: need k >= 0, the width of IABN's shrinkage in standard errors; 4 is published")
    return k


def _converted(layer: nn.BatchNorm2d, k: float) -> InstanceAwareBatchNorm2d:
    new = InstanceAwareBatchNorm2d(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, k
    )
    new._parameters, new._buffers = layer._parameters, layer._buffers
    return new.train(layer.training)


def _shrink(distance: Tensor, threshold: Tensor) -> Tensor:
    return F.relu(distance - threshold) - F.relu(-distance - threshold)
