"""Entropies of predictions."""

import math

import torch
from torch import Tensor


def softmax_entropy(logits: Tensor) -> Tensor:
    r"""Predictive entropy of every sample, :math:`H = -\sum_k p_k \ln p_k` with :math:`p` the softmax.

    Computed in float32 whatever the input dtype, since small probabilities underflow in half precision. Classes
    masked with ``-inf`` contribute zero (the usual ``softmax * log_softmax`` gives NaN for them). A row with a NaN
    gives NaN, which no threshold test passes.

    Args:
        logits: Unnormalised scores, shape ``(B, C)``, any floating dtype.

    Returns:
        Entropies in nats, shape ``(B,)``, float32, in ``[0, ln C]``.
    """
    logits = logits.float()
    log_probabilities = logits.log_softmax(dim=1)
    log_probabilities = log_probabilities.masked_fill(log_probabilities == -math.inf, 0.0)
    return -(logits.softmax(dim=1) * log_probabilities).sum(dim=1)


def marginal_entropy(probabilities: Tensor) -> Tensor:
    """Entropy of the mean prediction, divided by ``ln C``.

    Near 1 when predictions spread over all classes, 0 when all fall on one. A batch of one class gives a low value
    too, so compare it with the same figure of the frozen source model before speaking of collapse.

    Args:
        probabilities: Class probabilities, shape ``(B, C)``, rows summing to one, ``B >= 1``, ``C >= 2``.

    Returns:
        Scalar tensor in ``[0, 1]``.
    """
    mean = probabilities.float().mean(dim=0)
    entropy: Tensor = torch.special.entr(mean).sum()
    return entropy / math.log(probabilities.shape[1])


def effective_classes(counts: Tensor) -> Tensor:
    """Effective number of predicted classes: the exponential of the entropy of the class histogram.

    Args:
        counts: Predictions per class, shape ``(C,)``, non-negative.

    Returns:
        Scalar tensor in ``[1, C]``; NaN for an empty histogram.
    """
    shares = counts.float() / counts.sum()
    entropy: Tensor = torch.special.entr(shares).sum()
    return entropy.exp()
