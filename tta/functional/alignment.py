"""Do the gradients of two losses point the same way?"""

from collections.abc import Sequence

import torch
from torch import Tensor

EPSILON = 1e-12


def standardised(gradients: Sequence[Tensor], constant_statistics: bool = True) -> Tensor:
    """Gradients as one vector of mean 0 and standard deviation 1.

    Args:
        gradients: Tensors of any shapes, together at least two numbers.
        constant_statistics: Whether mean and standard deviation count as constants.

    Returns:
        Shape ``(P,)``, on the graph of ``gradients``; zeros where all numbers are equal.
    """
    vector = torch.cat([gradient.flatten() for gradient in gradients])
    mean, std = vector.mean(), vector.std()
    if constant_statistics:
        mean, std = mean.detach(), std.detach()
    return (vector - mean) / std.clamp_min(EPSILON)


def alignment_loss(learnt: Sequence[Tensor], wanted: Sequence[Tensor], constant_statistics: bool = False) -> Tensor:
    r"""Mean squared difference of two gradients, both standardised over all their numbers.

    Its value is :math:`2 (1 - r) (P - 1) / P` with the correlation :math:`r` and the number of parameters :math:`P`:
    the magnitude of the gradients does not count. Its derivative is that of the correlation only if mean and standard
    deviation are differentiated too. Taken as constants, as in the authors' code (commit 63794c4), the derivative also
    asks for a shorter ``learnt`` as long as the correlation is below 1, since :math:`s \hat g` is nearest to the other
    at :math:`s = r`: a loss that makes that gradient is driven to zero.

    Args:
        learnt: Gradients that are to change, on a graph.
        wanted: Gradients that they should resemble, of the same shapes; taken as constants.
        constant_statistics: Whether mean and standard deviation of ``learnt`` count as constants.

    Returns:
        Scalar, at least 0.

    References:
        Improved Test-Time Adaptation for Domain Generalization, CVPR 2023, https://arxiv.org/abs/2304.04494.
    """
    return (standardised(learnt, constant_statistics) - standardised(wanted).detach()).square().mean()


def gradient_correlation(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Pearson correlation of two gradients, each taken as one vector.

    Args:
        first: Tensors of any shapes.
        second: Tensors of the same shapes.

    Returns:
        Detached scalar in ``[-1, 1]``; 0 where one of them is constant.
    """
    a, b = standardised(first).detach(), standardised(second).detach()
    return (a * b).sum() / max(len(a) - 1, 1)
