"""Losses against the prediction of a teacher, given as logits."""

from typing import Any

import torch
from torch import Tensor


def soft_cross_entropy(logits: Tensor, target_logits: Tensor) -> Tensor:
    r"""Cross-entropy of soft targets, :math:`-\sum_k q_k \ln p_k`, with p and q the softmax of the arguments.

    The gradient is the plain difference :math:`p - q`: exactly zero where both agree bit for bit, which optimisers
    that divide by the gradient's size need. A class that is masked with ``-inf`` in both contributes zero.

    Args:
        logits: Scores that learn, shape ``(B, C)``, any floating dtype.
        target_logits: Scores of the teacher, shape ``(B, C)``; no gradient flows into them.

    Returns:
        Losses in nats, shape ``(B,)``, float32.
    """
    losses: Tensor = _SoftCrossEntropy.apply(logits.float(), target_logits.detach().float())
    return losses


def reverse_cross_entropy(logits: Tensor, target_logits: Tensor) -> Tensor:
    r"""Cross-entropy with the roles exchanged, :math:`-\sum_k p_k \ln q_k`.

    The gradient is exactly zero where the teacher's logits are constant. A class that is masked with ``-inf`` in both
    contributes zero.

    Args:
        logits: Scores that learn, shape ``(B, C)``, any floating dtype.
        target_logits: Scores of the teacher, shape ``(B, C)``; no gradient flows into them.

    Returns:
        Losses in nats, shape ``(B,)``, float32.
    """
    target = target_logits.detach().float()
    below_largest = target - target.amax(dim=1, keepdim=True)
    log_total = below_largest.logsumexp(dim=1)
    below_largest = below_largest.masked_fill(below_largest == -torch.inf, 0.0)
    return log_total - (logits.float().softmax(dim=1) * below_largest).sum(dim=1)


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target_logits: Tensor) -> Tensor:  # noqa: ANN401  autograd's context
        target = target_logits.softmax(dim=1)
        ctx.save_for_backward(logits.softmax(dim=1) - target)
        log_probabilities = logits.log_softmax(dim=1)
        return -(target * torch.where(target > 0.0, log_probabilities, 0.0)).sum(dim=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401  autograd's context
        (difference,) = ctx.saved_tensors
        return gradient.unsqueeze(1) * difference, None
