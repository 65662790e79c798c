"""What ROID and CMF share: weighted self-training with a consistency term, and prior correction of the logits."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from tta.adapters.base import AdapterOutput, Facts, Updater, checked_logits
from tta.adapters.entropy_minimization import check_positive, no_contribution
from tta.adapters.first_pass import nobody
from tta.adapters.select import Select
from tta.adapters.selective_minimization import SelectiveMinimization
from tta.adapters.subset import subset_logits
from tta.adapters.views import ROIDViews, Transform, random_views
from tta.adapters.weight_copy import WeightCopy
from tta.errors import InputError
from tta.functional.self_training import (
    certainty_diversity_weights,
    prior_corrected,
    soft_likelihood_ratio,
    symmetric_cross_entropy,
)


class WeightedSelfTraining(SelectiveMinimization):
    r"""Base of ROID and CMF: a step on weighted samples, after which weights are averaged with those of the source.

    With :math:`w` the weights of :func:`~tta.functional.certainty_diversity_weights`, the loss is
    :math:`\frac1B \sum_i w_i (\mathrm{SLR}(z_i) + \mathrm{SCE}(z'_i, z_i))`, where :math:`z'` are the logits of a
    random view. Only samples with a weight have a view. Gradients flow through both arguments of the symmetric cross
    entropy.

    Args:
        temperature: Temperature of the weights, above 0.
        momentum_probabilities: Momentum of the mean prediction, in ``[0, 1]``.
        prior_correction: Multiply logits by the smoothed class prior of their batch.
        views: Random transformation of an image ``(C, H, W)`` in ``[0, 1]``.
        seed: Non-negative seed of the views.
        select: Layers whose parameters adapt.

    Raises:
        InputError: For a value out of range.
    """

    facts = Facts(
        needs_gradients=True,
        steps_per_batch=1,
        forwards=2,
        backwards=2,
        augments=True,
        trains="affine parameters of normalisation layers",
    )

    mean_prediction: Tensor
    draws: Tensor

    def __init__(
        self,
        temperature: float,
        momentum_probabilities: float,
        prior_correction: bool,
        views: Transform | None,
        seed: int,
        select: Select,
    ) -> None:
        super().__init__(select)
        check_positive(temperature=temperature)
        check_shares(momentum_probabilities=momentum_probabilities)
        if seed < 0:
            raise InputError(f"seed={seed}: need seed >= 0")
        self.temperature = temperature
        self.momentum_probabilities = momentum_probabilities
        self.prior_correction = prior_correction
        self.views = ROIDViews() if views is None else views
        self.seed = seed
        self.source = WeightCopy()
        self.register_buffer("mean_prediction", torch.empty(0))
        self.register_buffer("draws", torch.tensor(0))

    @abstractmethod
    def ensemble(self, model: nn.Module) -> None:
        """Average the model's weights with others, in place, after a step that was taken."""

    def prepare(self, model: nn.Module) -> None:
        """Eval mode with batch statistics; only the selected layers adapt, and their source values are kept."""
        super().prepare(model)
        self.source.fill(model)

    def reset(self) -> None:
        """Back to uniform mean predictions and the first views, and forget how many samples had a weight."""
        super().reset()
        self.mean_prediction = self.mean_prediction.new_empty(0)
        self.draws.zero_()

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """Logits with the prior correction of this batch, shape ``(B, C)``, float32."""
        return self._corrected(super().predict(model, x))

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """One step on the samples that have a weight, and the average with other weights."""
        first = self.passes.take(model, x)
        weights = certainty_diversity_weights(first.logits, self._usual(first.logits[0]), self.temperature)
        kept = weights > 0.0
        self.passes.observe(kept, updater)
        if not updater.any(bool(kept.any())):
            return AdapterOutput(self._corrected(first.logits), reliable=kept)
        with torch.enable_grad():
            loss = self._loss(model, x, first.graph(kept), weights, kept)
            updater.backward(loss)
        self._finish(model, first.logits, updater)
        return AdapterOutput(self._corrected(first.logits), loss=loss.detach(), reliable=kept)

    def sit_out(self, model: nn.Module, x: Tensor, updater: Updater) -> None:
        """Contribute zero gradients and no prediction, and average weights as the other processes do."""
        self.passes.observe(nobody(x), updater)
        if updater.any(False):
            with torch.enable_grad():
                logits = model(x.nan_to_num(0.0, 0.0, 0.0))
                updater.backward(no_contribution(logits))
            self._finish(model, checked_logits(logits)[:0], updater)

    def _loss(self, model: nn.Module, x: Tensor, logits: Tensor, weights: Tensor, kept: Tensor) -> Tensor:
        if not bool(kept.any()):
            return no_contribution(logits)
        seed = (self.seed, int(self.draws))
        viewed = subset_logits(model, x, kept, lambda images: random_views(images, self.views, seed, count=1)[0])
        losses = soft_likelihood_ratio(logits) + symmetric_cross_entropy(viewed, logits)
        return (weights[kept] * losses).sum() / len(x)

    def _finish(self, model: nn.Module, logits: Tensor, updater: Updater) -> None:
        self.draws += 1
        probabilities = logits.softmax(dim=1)
        probabilities = probabilities[probabilities.isfinite().all(dim=1)]
        count = probabilities.new_tensor([float(len(probabilities))])
        total = updater.mean(torch.cat([probabilities.sum(dim=0), count]))
        if updater.step():
            self.ensemble(model)
            mean, share = total[:-1] / total[-1], self.momentum_probabilities
            self.mean_prediction = share * self._usual(mean) + (1.0 - share) * mean

    def _usual(self, row: Tensor) -> Tensor:
        """The mean prediction; uniform, in the likeness of ``row``, before the first."""
        return self.mean_prediction if len(self.mean_prediction) else torch.full_like(row, 1.0 / len(row))

    def _corrected(self, logits: Tensor) -> Tensor:
        return prior_corrected(logits) if self.prior_correction else logits


def check_shares(**values: float) -> None:
    """Raise ``InputError`` naming the first argument that is not in ``[0, 1]``."""
    for name, value in values.items():
        if not 0.0 <= value <= 1.0:
            raise InputError(f"{name}={value}: need 0 <= {name} <= 1")
