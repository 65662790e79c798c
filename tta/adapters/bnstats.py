"""Adaptation of batch normalisation statistics."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, Facts, Updater, checked_logits
from tta.adapters.select import layer_census
from tta.errors import InputError
from tta.functional.normalization import batch_norm_layers, batch_statistics_only, mixed_batch_statistics


class BNStats(Adapter):
    r"""Normalise with statistics of the test data instead of the source's. No gradient, no parameter changes.

    The statistics are :math:`(1-a)\,\text{running} + a\,\text{batch}`:

    - ``batch_weight=1`` (default): the batch alone ("prediction-time batch normalisation", BN-1).
    - ``batch_weight=a`` below 1: a source/batch mixture; a source prior of :math:`N` samples at batch size :math:`n`
      is :math:`a = n / (N + n)`.
    - ``accumulate=True``: the mixture becomes the next batch's running statistics, an exponential moving average over
      the stream with momentum :math:`a`.

    At batch size one, ``batch_weight=1`` normalises each image with its own statistics and raises an ``InputError``
    where a layer sees a single value per channel; a mixture works everywhere. With ``batch_weight=1`` the batch
    variance is the biased one, as in training; in mixtures it is the unbiased one, as in PyTorch's running variance.

    The moving average is taken in one forward pass, each layer's statistics being those under the statistics of the
    layers before it that are used for prediction. The popular re-implementation takes a pass in training mode to
    update and a second to predict.

    Args:
        batch_weight: Share of the batch statistics, in ``(0, 1]``.
        accumulate: Keep the mixture for the next batch.

    Raises:
        InputError: If ``batch_weight`` is out of range.

    References:
        Evaluating Prediction-Time Batch Normalization, https://arxiv.org/abs/2006.10963; Improving robustness against
        common corruptions by covariate shift adaptation, NeurIPS 2020, eq. (3), https://arxiv.org/abs/2006.16971.
    """

    facts = Facts(needs_batch_norm=True, paper="https://arxiv.org/abs/2006.10963")

    def __init__(self, batch_weight: float = 1.0, accumulate: bool = False) -> None:
        super().__init__()
        if not 0.0 < batch_weight <= 1.0:
            raise InputError(f"batch_weight={batch_weight}: need 0 < batch_weight <= 1")
        self.batch_weight = batch_weight
        self.accumulate = accumulate
        self.facts = replace(type(self).facts, changes_statistics=accumulate)

    @property
    def _batch_only(self) -> bool:
        return self.batch_weight == 1.0 and not self.accumulate

    def prepare(self, model: nn.Module) -> None:
        """Freeze everything; batch statistics, or running ones that :meth:`adapt` mixes.

        Raises:
            InputError: If the model has no batch normalisation layer.
        """
        if not batch_norm_layers(model):
            raise InputError(
                f"BNStats needs batch normalisation and the model has {layer_census(model)}: use Tent, EATA or SAR"
            )
        model.eval()
        model.requires_grad_(False)
        if self._batch_only:
            batch_statistics_only(model)

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """Predict with the new statistics."""
        with torch.no_grad():
            if self._batch_only:
                return AdapterOutput(checked_logits(model(x)))
            with mixed_batch_statistics(model, self.batch_weight, self.accumulate):
                return AdapterOutput(checked_logits(model(x)))

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """Predict without learning: a moving average stays where it is and is used as it is."""
        if self._batch_only or self.accumulate:
            return super().predict(model, x)
        with mixed_batch_statistics(model, self.batch_weight, accumulate=False):
            return super().predict(model, x)
