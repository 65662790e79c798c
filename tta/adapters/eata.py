"""EATA: reliable, non-redundant samples, and a Fisher anchor against forgetting."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from tta.adapters.base import AdapterOutput, Facts, Updater
from tta.adapters.reliable_entropy import ReliableEntropy
from tta.adapters.select import Select
from tta.errors import InputError
from tta.functional.fisher import fisher_information, fisher_penalty


class EATA(ReliableEntropy):
    r"""Entropy minimisation on samples that are reliable and not redundant, anchored to the source weights.

    A sample is *reliable* when its entropy is below ``margin * ln C`` and *not redundant* when the cosine between its
    prediction and the moving average of selected predictions is below ``redundancy`` in absolute value. Selected
    samples are weighted by :math:`\exp(E_0 - H)`. ``fisher_alpha=0`` gives :class:`~tta.adapters.ETA`.

    Returned logits are those from before the update. With nothing selected (also on constant logits, whose entropy is
    maximal) no step is taken, not even on momentum or on the anchor. A batch of one is a batch that selects one
    sample or none.

    Args:
        margin: Entropy margin as a share of ``ln C``, above 0.
        redundancy: Cosine threshold :math:`d`, above 0: 0.05 on ImageNet, 0.4 on CIFAR-10, 0.1 on CIFAR-100.
        fisher_alpha: Weight of the anchor, at least 0: 2000 on ImageNet, 1 on CIFAR-10. Above 0 the method must see
            source images first (:meth:`observe_source`).
        select: Layers whose parameters adapt.

    Raises:
        InputError: For a value out of range; at the first batch when ``fisher_alpha > 0`` and no source image was
            seen.

    References:
        Efficient Test-Time Model Adaptation without Forgetting, ICML 2022, eq. (2)-(8),
        https://arxiv.org/abs/2204.02610. Differs from the authors' code: ``reset()`` also clears the moving average of
        predictions, which theirs keeps; the margin scales with the number of classes; dropout stays off.
    """

    facts = Facts(
        needs_gradients=True,
        steps_per_batch=1,
        backwards=1,
        needs_source_data=True,
        trains="affine parameters of normalisation layers",
        paper="https://arxiv.org/abs/2204.02610",
    )

    fisher: Tensor
    anchor: Tensor

    def __init__(
        self,
        margin: float = 0.4,
        redundancy: float = 0.05,
        fisher_alpha: float = 2000.0,
        select: Select = Select(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(margin, redundancy, select)
        if fisher_alpha < 0.0:
            raise InputError(f"fisher_alpha={fisher_alpha}: need fisher_alpha >= 0; 0 turns the anchor off (ETA)")
        self.fisher_alpha = fisher_alpha
        self.facts = replace(type(self).facts, needs_source_data=fisher_alpha > 0.0)
        self.register_buffer("fisher", torch.empty(0))
        self.register_buffer("anchor", torch.empty(0))

    def observe_source(self, model: nn.Module, batches: Iterable[Tensor]) -> None:
        """Estimate the Fisher information and remember the source parameters.

        Args:
            model: The prepared classifier with source weights.
            batches: Source image batches, on the model's device; the authors take 2,000 images.

        Raises:
            InputError: If there is no batch, or the information is not finite.
        """
        parameters = self.trainable(model)
        fisher = fisher_information(model, parameters, batches)
        if not bool(torch.isfinite(fisher).all()):
            raise InputError("the Fisher information of the source images is not finite: check images and weights")
        self.fisher = fisher
        self.anchor = torch.cat([parameter.detach().flatten().float() for parameter in parameters])

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """One step on the selected samples, if there are any."""
        if self.fisher_alpha > 0.0 and len(self.fisher) == 0:
            raise InputError("EATA has no Fisher information: give source images (source=...) or set fisher_alpha=0")
        return super().adapt(model, x, updater)

    def penalty(self, model: nn.Module) -> Tensor | float:
        """The anchor: distance from the source parameters, weighted by their Fisher information."""
        if self.fisher_alpha == 0.0:
            return 0.0
        return self.fisher_alpha * fisher_penalty(self.trainable(model), self.fisher, self.anchor)
