"""Weights, losses and prior correction for training a classifier on its own predictions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tta.functional.entropy import softmax_entropy

ROUNDING = 1e-6
"""Values that differ by less count as equal: their differences are rounding errors of float32."""


def min_max_scaled(values: Tensor) -> Tensor:
    """Map values linearly onto ``[0, 1]``, the smallest to 0 and the largest to 1.

    Args:
        values: Shape ``(N,)``, floating point, ``N >= 1``, all finite.

    Returns:
        Shape ``(N,)``. Values that are all equal, up to 1e-6, give zeros, where the usual formula divides 0 by 0.
    """
    lowest, highest = values.aminmax()
    spread = highest - lowest
    return torch.where(spread > ROUNDING, (values - lowest) / spread.clamp(min=ROUNDING), torch.zeros_like(values))


def certainty_diversity_weights(logits: Tensor, mean_prediction: Tensor, temperature: float) -> Tensor:
    r"""ROID's weights of samples: large for predictions that are certain and unlike the usual ones.

    :math:`w_i = \exp(d_i c_i / \tau)` where :math:`d_i \geq \bar d`, else 0, with :math:`d` one minus the cosine
    between a prediction and the mean prediction, and :math:`c` minus the entropy, both scaled onto ``[0, 1]`` within
    the batch.

    Predictions that are all equally diverse, as those of one sample or of identical samples, all get weight 1: nothing
    tells them apart. The published formula divides 0 by 0 there.

    Args:
        logits: Unnormalised scores, shape ``(N, C)``, floating point. Rows whose softmax is not finite get weight 0 and
            count in no mean.
        mean_prediction: Average of recent predictions, shape ``(C,)``, not all zero.
        temperature: :math:`\tau`, above 0.

    Returns:
        Shape ``(N,)``, float32, each 0 or in :math:`[1, e^{1/\tau}]`.

    References:
        Universal Test-time Adaptation through Weight Ensembling, Diversity Weighting, and Prior Correction, WACV 2024,
        certainty and diversity weighting, https://arxiv.org/abs/2306.00650.
    """
    probabilities = logits.float().softmax(dim=1)
    valid = probabilities.isfinite().all(dim=1)
    weights = torch.zeros(len(logits), device=logits.device)
    if not bool(valid.any()):
        return weights
    similarity = F.cosine_similarity(mean_prediction.unsqueeze(0), probabilities[valid], dim=1)
    diversity = min_max_scaled(1.0 - similarity)
    certainty = min_max_scaled(-softmax_entropy(logits[valid]))
    weights[valid] = (diversity * certainty / temperature).exp() * (diversity >= diversity.mean())
    return weights


def soft_likelihood_ratio(logits: Tensor) -> Tensor:
    r"""Soft likelihood ratio, :math:`-\sum_k p_k \ln(p_k / (1 - p_k) + 10^{-5})`, with :math:`p_k` at most 0.99.

    Unlike that of the entropy, its gradient does not vanish as a prediction gets certain, until :math:`p_k` reaches
    0.99, where it stops.

    Args:
        logits: Unnormalised scores, shape ``(B, C)``, any floating dtype; computed in float32. Classes masked with
            ``-inf`` contribute zero.

    Returns:
        Shape ``(B,)``, float32.

    References:
        Universal Test-time Adaptation, WACV 2024, https://arxiv.org/abs/2306.00650. The upper bound and the 1e-5 are
        those of the authors' code.
    """
    p = logits.float().softmax(dim=1).clamp(max=0.99)
    return -(p * (p / (1.0 - p) + 1e-5).log()).sum(dim=1)


def symmetric_cross_entropy(first: Tensor, second: Tensor) -> Tensor:
    r"""Mean of the cross entropies in both directions, :math:`-\frac12 \sum_k (q_k \ln p_k + p_k \ln q_k)`.

    Gradients flow into both arguments; detach the one that is to be a target.

    Args:
        first: Logits whose softmax is :math:`p`, shape ``(B, C)``, any floating dtype; computed in float32.
        second: Logits whose softmax is :math:`q`, shape ``(B, C)``. Classes masked with ``-inf`` in both contribute
            zero.

    Returns:
        Shape ``(B,)``, float32, at least 0.
    """
    log_p, log_q = _log_probabilities(first), _log_probabilities(second)
    return -0.5 * (second.float().softmax(dim=1) * log_p + first.float().softmax(dim=1) * log_q).sum(dim=1)


def _log_probabilities(logits: Tensor) -> Tensor:
    log_probabilities = logits.float().log_softmax(dim=1)
    return log_probabilities.masked_fill(log_probabilities == -math.inf, 0.0)


def prior_corrected(logits: Tensor) -> Tensor:
    r"""ROID's prior correction: logits times the smoothed class prior of their own batch.

    :math:`z_k (\pi_k + s) / (1 + s C)` with :math:`\pi` the mean prediction and
    :math:`s = \max(1/N, 1/C) / \max_k \pi_k`. As published, logits are multiplied and not probabilities: this also
    changes the temperature of the softmax, and lowers a *negative* logit of a frequent class.

    Args:
        logits: Unnormalised scores, shape ``(N, C)``, floating point. Rows whose softmax is not finite do not count in
            the prior.

    Returns:
        Shape ``(N, C)``. A batch of one is its own prior.

    References:
        Universal Test-time Adaptation, WACV 2024, prior correction, https://arxiv.org/abs/2306.00650.
    """
    probabilities = logits.softmax(dim=1)
    probabilities = probabilities[probabilities.isfinite().all(dim=1)]
    count, classes = probabilities.shape
    if count == 0:
        return logits
    prior = probabilities.mean(dim=0)
    smooth = max(1.0 / count, 1.0 / classes) / prior.max()
    return logits * ((prior + smooth) / (1.0 + smooth * classes))
