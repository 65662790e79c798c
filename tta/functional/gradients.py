"""Questions about gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """L2 norm over the gradients of all parameters that have one.

    Args:
        parameters: Parameters on one device; those whose ``grad`` is ``None`` are passed over.

    Returns:
        Scalar tensor, at least 0; 0 when no parameter has a gradient; non-finite when any gradient is.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    return overall_norm(gradients)


def overall_norm(tensors: Sequence[Tensor]) -> Tensor:
    """L2 norm of several tensors taken as one vector; a scalar tensor."""
    norms: tuple[Tensor, ...] = torch._foreach_norm(list(tensors))
    return torch.stack(norms).square().sum().sqrt()
