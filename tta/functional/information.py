"""Information maximisation: predictions that are each certain and together diverse."""

from torch import Tensor

from tta.functional.entropy import softmax_entropy

EPSILON = 1e-5
"""Added to the mean prediction before the logarithm, as published."""


def information_maximization_loss(logits: Tensor) -> Tensor:
    r"""Mean entropy of the predictions less the entropy of their mean.

    :math:`\overline{H(p_i)} + \sum_k \bar p_k \ln(\bar p_k + \epsilon)`, with :math:`\bar p` the mean of the
    :math:`p_i`. For a single sample, or identical ones, the two terms cancel up to :math:`\epsilon`.

    Args:
        logits: Shape ``(B, C)``, ``B >= 1``, any floating dtype; computed in float32.

    Returns:
        Scalar, float32, on the graph of ``logits``; between ``-ln C`` and about 0.
    """
    mean = logits.float().softmax(dim=1).mean(dim=0)
    loss: Tensor = softmax_entropy(logits).mean() + (mean * (mean + EPSILON).log()).sum()
    return loss
