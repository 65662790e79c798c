"""ROID: weighted self-training, averaged with the source weights at every step."""

from dataclasses import replace

import torch
from torch import nn

from tta.adapters.select import Select
from tta.adapters.views import Transform
from tta.adapters.weighted_self_training import WeightedSelfTraining, check_shares


class ROID(WeightedSelfTraining):
    r"""Self-training on certain and diverse samples, weights pulled to the source, logits corrected by their prior.

    One step. Samples get the weight :math:`w = \exp(d c / \tau)`, with diversity :math:`d` one minus the cosine between
    prediction and mean prediction, and certainty :math:`c` minus the entropy, both scaled onto ``[0, 1]`` within the
    batch; samples below the mean diversity get none. The loss is the sum of :math:`w` times soft likelihood ratio and
    :math:`w` times symmetric cross entropy between the image and one random view of it, over the size of the batch.
    Then :math:`\theta \leftarrow m\,\theta + (1 - m)\,\theta_{source}`.

    Returned logits are those from before the update, times the smoothed class prior of the batch
    (:func:`~tta.functional.prior_corrected`): on a stream whose classes come in runs this exploits the run, so compare
    methods with and without it.

    At least one sample has a weight, so every batch teaches. A batch of one, and identical samples, cannot be told
    apart: all get weight 1, where the published code divides 0 by 0 and its model is NaN from then on. On constant
    logits gradients are zero. A step that is skipped because a gradient is not finite moves neither weights nor mean
    prediction. Only samples with a weight have a view, and with batch normalisation views take their statistics from
    each other, as published: in small batches these are of very few images, and rounding in half precision shows. Where
    they leave one value per channel, views of the whole batch go through the model instead.

    Args:
        momentum_source: :math:`m`, in ``[0, 1]``; 1 keeps the source out.
        temperature: :math:`\tau` of the weights, above 0.
        momentum_probabilities: Momentum of the mean prediction, which starts uniform, in ``[0, 1]``.
        prior_correction: Multiply logits by the smoothed class prior of their batch.
        views: Random transformation of an image ``(C, H, W)`` in ``[0, 1]``, on its device, which draws from torch's
            global generator, such as those of :mod:`tta.adapters.views`. By default the published one.
        seed: Non-negative seed of the views.
        select: Layers whose parameters adapt.

    Raises:
        InputError: For a value out of range.

    References:
        Universal Test-time Adaptation through Weight Ensembling, Diversity Weighting, and Prior Correction, WACV 2024,
        https://arxiv.org/abs/2306.00650. The authors' code is test-time-adaptation (commit 8b2ed63). Differs from it:
        sums are divided by the number of images in the batch, not by the configured one (the same but for the last
        batch, and for their window of single images, whose steps grow with the window); every image has its own view,
        theirs shares one draw; differences of rounding size count as none when scaled; their SGD has Nesterov momentum
        by default. As there, logits and not probabilities are multiplied in the prior correction, and gradients flow
        through both sides of the symmetric cross entropy.
    """

    facts = replace(WeightedSelfTraining.facts, paper="https://arxiv.org/abs/2306.00650")

    def __init__(
        self,
        momentum_source: float = 0.99,
        temperature: float = 1 / 3,
        momentum_probabilities: float = 0.9,
        prior_correction: bool = True,
        views: Transform | None = None,
        seed: int = 0,
        select: Select = Select(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(temperature, momentum_probabilities, prior_correction, views, seed, select)
        check_shares(momentum_source=momentum_source)
        self.momentum_source = momentum_source

    @torch.no_grad()
    def ensemble(self, model: nn.Module) -> None:
        """Average the adapted parameters with those of the source."""
        source = self.source.values()
        for name, parameter in model.named_parameters():
            if name in source:
                # Not a sum of two products: equal weights must stay equal.
                parameter.lerp_(source[name], 1.0 - self.momentum_source)
