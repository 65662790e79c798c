"""CMF: weighted self-training, averaged with weights that a Kalman filter follows."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from tta.adapters.entropy_minimization import check_positive
from tta.adapters.select import Select
from tta.adapters.views import Transform
from tta.adapters.weight_copy import WeightCopy
from tta.adapters.weighted_self_training import WeightedSelfTraining, check_shares

REFERENCE_SIZE = 38400
"""Number of parameters to which the published noise belongs: the affine ones of ViT-B's normalisation layers."""


class CMF(WeightedSelfTraining):
    r"""ROID's self-training, averaged not with the source but with weights between source and target.

    Loss, weights of samples and prior correction are those of :class:`~tta.adapters.ROID`, and so is all that is said
    there on small batches, identical samples, constant logits and views. After a step, a Kalman filter with one
    variance for all weights updates the hidden weights :math:`h`, and the model is averaged with them:

    .. math::
        h &\leftarrow \alpha h + (1 - \alpha)\,\theta_{source}, \qquad v \leftarrow \alpha^2 v + q' \\
        \beta &= \min(\max(\tfrac{r}{v + r}, 0.89), 1), \qquad r = 1 - q' \\
        v &\leftarrow \beta v, \qquad h \leftarrow \beta h + (1 - \beta)\,\theta \\
        \theta &\leftarrow \gamma\,\theta + (1 - \gamma)\,h

    with :math:`q' = q\,n / 38400` for ``n`` adapted parameters, and :math:`\beta = 1` from 0.9999 on. Hidden weights
    start as the source's, :math:`v` as 0. A skipped step leaves both alone.

    Args:
        alpha: Share of the hidden weights that a step keeps against the source, in ``[0, 1]``.
        gamma: Share of the model's own weights in the average, in ``[0, 1]``.
        q: Variance of the noise of the hidden weights, above 0, for 38,400 parameters as in ViT-B.
        temperature: Temperature of the weights of samples, above 0.
        momentum_probabilities: Momentum of the mean prediction, which starts uniform, in ``[0, 1]``.
        prior_correction: Multiply logits by the smoothed class prior of their batch.
        views: Random transformation of an image ``(C, H, W)`` in ``[0, 1]``, on its device, which draws from torch's
            global generator, such as those of :mod:`tta.adapters.views`. By default the published one.
        seed: Non-negative seed of the views.
        select: Layers whose parameters adapt.

    Raises:
        InputError: For a value out of range.

    References:
        Continual Momentum Filtering on Parameter Space for Online Test-time Adaptation, ICLR 2024,
        https://openreview.net/forum?id=BllUWdpIOA. Bounds and scaling of ``q`` are those of the authors' code, as
        contained in test-time-adaptation (commit 8b2ed63). Differs from it as ROID does, and: ``reset()`` clears the
        variance too, which theirs keeps; source and hidden weights are kept of adapted layers alone.
    """

    facts = replace(WeightedSelfTraining.facts, paper="https://openreview.net/forum?id=BllUWdpIOA")

    hidden_variance: Tensor

    def __init__(
        self,
        alpha: float = 0.99,
        gamma: float = 0.99,
        q: float = 0.005,
        temperature: float = 1 / 3,
        momentum_probabilities: float = 0.9,
        prior_correction: bool = True,
        views: Transform | None = None,
        seed: int = 0,
        select: Select = Select(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(temperature, momentum_probabilities, prior_correction, views, seed, select)
        check_positive(q=q)
        check_shares(alpha=alpha, gamma=gamma)
        self.alpha = alpha
        self.gamma = gamma
        self.q = q
        self.hidden = WeightCopy()
        self.register_buffer("hidden_variance", torch.tensor(0.0))

    def prepare(self, model: nn.Module) -> None:
        """As ROID; the hidden weights start as the source's."""
        super().prepare(model)
        self.hidden.fill(model)

    def reset(self) -> None:
        """As ROID; hidden weights and their variance start anew too."""
        super().reset()
        self.hidden.copy_from(self.source)
        self.hidden_variance.zero_()

    @torch.no_grad()
    def ensemble(self, model: nn.Module) -> None:
        """Filter the hidden weights, and average the adapted parameters with them."""
        source, hidden = self.source.values(), self.hidden.values()
        adapted = [(name, parameter) for name, parameter in model.named_parameters() if name in hidden]
        beta = self._share_kept(sum(parameter.numel() for _, parameter in adapted))
        for name, parameter in adapted:
            # Not sums of two products: equal weights must stay equal.
            hidden[name].lerp_(source[name], 1.0 - self.alpha).lerp_(parameter, 1.0 - beta)
            parameter.lerp_(hidden[name], 1.0 - self.gamma)

    def _share_kept(self, adapted: int) -> float:
        r"""Update the variance; :math:`\beta`."""
        noise = self.q * adapted / REFERENCE_SIZE
        variance = self.alpha**2 * float(self.hidden_variance) + noise
        beta = max((1.0 - noise) / (variance + 1.0 - noise), 0.89)
        beta = beta if beta < 0.9999 else 1.0
        self.hidden_variance.fill_(beta * variance)
        return beta
