"""One gradient step as a differentiable function of where it starts and of where it aims."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Network = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""A network as a function of its parameters by name and of a batch."""


def distillation_step(
    features: Network, parameters: Mapping[str, Tensor], x: Tensor, target: Tensor, lr: float
) -> dict[str, Tensor]:
    r"""One step of gradient descent towards a target, itself differentiable.

    :math:`\theta' = \theta - \alpha \nabla_\theta \frac{1}{BD} \sum (f(x; \theta) - t)^2`. The result depends on
    ``parameters`` and on ``target`` through a graph, the gradient within it included, so a loss at
    :math:`\theta'` gives second derivatives to both.

    Args:
        features: Maps parameters and images to features ``(B, D)``.
        parameters: Values :math:`\theta` by name, requiring gradients; those that the features do not depend on stay.
        x: Images, shape ``(B, ...)``.
        target: Features t to come closer to, shape ``(B, D)``; not detached.
        lr: Step size :math:`\alpha`. The loss is a mean over samples and features, so it goes with D.

    Returns:
        Values :math:`\theta'` by the same names.

    References:
        Meta-DMoE, NeurIPS 2022, eq. (5), https://arxiv.org/abs/2210.03885.
    """
    loss = F.mse_loss(features(parameters, x), target)
    values = list(parameters.values())
    gradients = torch.autograd.grad(loss, values, create_graph=True, materialize_grads=True)
    return {name: value - lr * gradient for (name, value), gradient in zip(parameters.items(), gradients, strict=True)}


def meta_distillation_loss(
    features: Network,
    logits: Network,
    parameters: Mapping[str, Tensor],
    support: tuple[Tensor, Tensor],
    query: tuple[Tensor, Tensor],
    lr: float,
) -> Tensor:
    """Cross entropy on the query after one step towards the target on the support.

    Args:
        features: Maps parameters and images to features ``(B, D)``.
        logits: Maps parameters and images to logits ``(B, K)``.
        parameters: The values before the step, by name, requiring gradients.
        support: Images ``(S, ...)`` and target features ``(S, D)``.
        query: Images ``(Q, ...)`` and classes ``(Q,)``, int64.
        lr: Size of the step.

    Returns:
        The loss, scalar, on a graph that reaches ``parameters``, the target and what ``logits`` itself uses.
    """
    adapted = distillation_step(features, parameters, *support, lr)
    return F.cross_entropy(logits(adapted, query[0]), query[1])
