"""Diagonal Fisher information and the penalty built on it."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tta.errors import InputError


def fisher_information(model: nn.Module, parameters: Sequence[nn.Parameter], batches: Iterable[Tensor]) -> Tensor:
    """Diagonal Fisher information of a classifier, estimated from its own predictions.

    The squared gradient of the *batch-mean* cross entropy against the predicted class, averaged over batches. The
    batch-level square (rather than the per-sample one) is what EATA publishes; it shrinks with the batch size, so
    compare penalties only at equal batch sizes.

    Args:
        model: Classifier, in the mode in which it will adapt.
        parameters: Parameters to estimate for; they must require gradients.
        batches: Image batches ``(B, ...)`` on the model's device, finite.

    Returns:
        All entries flattened and concatenated in the order of ``parameters``, shape ``(P,)``, float32.

    Raises:
        InputError: If ``batches`` is empty.
    """
    total = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in parameters]
    count = 0
    for images in batches:
        with torch.enable_grad():
            logits = model(images)
            loss = F.cross_entropy(logits.float(), logits.detach().argmax(dim=1))
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for accumulated, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                accumulated.add_(gradient.float().square())
        count += 1
    if count == 0:
        raise InputError("the loader of source images gave no batch: the Fisher information needs at least one")
    return torch.cat([accumulated.flatten() for accumulated in total]) / count


def fisher_penalty(parameters: Sequence[nn.Parameter], fisher: Tensor, anchor: Tensor) -> Tensor:
    r"""Distance from the source parameters, weighted by importance: :math:`\sum_i F_i (\theta_i - \theta_i^0)^2`.

    Args:
        parameters: Current parameters, in the order used for ``fisher``.
        fisher: Importances, shape ``(P,)``.
        anchor: Source values, shape ``(P,)``.

    Returns:
        Scalar tensor, differentiable in ``parameters``.

    References:
        EATA, ICML 2022, eq. (8), https://arxiv.org/abs/2204.02610.
    """
    current = torch.cat([parameter.flatten() for parameter in parameters])
    return (fisher * (current - anchor).square()).sum()
