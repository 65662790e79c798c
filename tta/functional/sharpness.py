"""The two moves of sharpness-aware minimisation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tta.functional.gradients import gradient_norm


@torch.no_grad()
def perturb_to_worst_case(parameters: Sequence[nn.Parameter], rho: float) -> list[Tensor] | None:
    r"""Move parameters to the first-order worst point within radius ``rho``.

    :math:`\theta \leftarrow \theta + \rho\, g / (\lVert g \rVert_2 + 10^{-12})`, with the norm taken over all
    parameters together. Gradients are cleared afterwards, ready for the pass at the perturbed point.

    Args:
        parameters: Parameters whose ``grad`` is filled; those without a gradient stay where they are.
        rho: Radius in parameter space, at least 0.

    Returns:
        The values before the move, in the order of ``parameters``, for :func:`restore_parameters`; ``None``, with
        nothing moved, when the gradient is not finite.

    References:
        Sharpness-Aware Minimization, ICLR 2021, eq. (2), https://arxiv.org/abs/2010.01412.
    """
    norm = gradient_norm(parameters)
    if not torch.isfinite(norm):
        return None
    before = [parameter.detach().clone() for parameter in parameters]
    moved = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    if moved:
        points, gradients = (list(tensors) for tensors in zip(*moved, strict=True))
        torch._foreach_add_(points, torch._foreach_mul(gradients, rho / (norm + 1e-12)))
    for parameter in parameters:
        parameter.grad = None
    return before


@torch.no_grad()
def restore_parameters(parameters: Sequence[nn.Parameter], before: Sequence[Tensor]) -> None:
    """Undo :func:`perturb_to_worst_case`, exactly; gradients are kept.

    Args:
        parameters: The parameters that were moved.
        before: What :func:`perturb_to_worst_case` returned for them.
    """
    torch._foreach_copy_(list(parameters), list(before))
