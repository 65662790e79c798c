"""Entropy of the mean prediction over views of an image."""

import math

import torch
from torch import Tensor

from tta.functional.entropy import softmax_entropy


def view_marginal_entropy(logits: Tensor) -> Tensor:
    r"""Entropy of the mean prediction, :math:`H(\bar p)` with :math:`\bar p = \frac1n\sum_i p_i`, to be lowered.

    Computed in float32 from log-probabilities, :math:`\ln \bar p = \mathrm{logsumexp}_i \ln p_i - \ln n`, which stay
    finite where probabilities underflow; ``-inf`` (a masked class) is clamped to the smallest float, as in the authors'
    code of MEMO. On constant logits the gradient is zero up to rounding, below 1e-13.

    Args:
        logits: Logits of ``n`` views, shape ``(n, C)``, any floating dtype.

    Returns:
        Scalar in nats, float32, in ``[0, ln C]``.
    """
    log_probabilities = logits.float().log_softmax(dim=1)
    log_probabilities = log_probabilities.clamp(min=torch.finfo(log_probabilities.dtype).min)
    log_mean = log_probabilities.logsumexp(dim=0) - math.log(len(logits))
    # Only differences count, and without the offset equal ones leave less rounding in the gradient.
    return softmax_entropy((log_mean - log_mean.detach().max()).unsqueeze(0)).squeeze(0)
