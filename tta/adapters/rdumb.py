"""RDumb: ETA that starts anew at a fixed interval."""

import torch
from torch import Tensor, nn

from tta.adapters.base import AdapterOutput, Facts, ResetScope, Updater
from tta.adapters.reliable_entropy import ReliableEntropy
from tta.adapters.select import Select
from tta.errors import InputError


class RDumb(ReliableEntropy):
    """ETA, and back to the source every ``every`` batches: weights, optimiser and method state.

    Adapts as :class:`~tta.adapters.ETA`, whose remarks on small batches, constant logits and identical samples hold
    here too. The interval is counted in batches, with or without a selected sample, as published; a batch without a
    finite image counts as well. Nothing is reset because a stream went well or badly: that is the point of the method.

    Args:
        every: Batches between two resets, at least 1; 1000 as published.
        margin: Entropy margin as a share of ``ln C``, above 0.
        redundancy: Cosine threshold, above 0: 0.05 on ImageNet, 0.4 on CIFAR-10, 0.1 on CIFAR-100.
        select: Layers whose parameters adapt.

    Raises:
        InputError: For a value out of range.

    References:
        RDumb: A simple approach that questions our progress in continual test-time adaptation, NeurIPS 2023,
        https://arxiv.org/abs/2306.05401. The authors' code (CCC, commit 656dec3) resets before a batch whose number is
        a multiple of 1000, which is the same as after the batch before it; its margin is that of 1000 classes. The
        re-implementation in test-time-adaptation (commit 8b2ed63) takes redundancy 0.4 on CIFAR-100 too.
    """

    facts = Facts(
        needs_gradients=True,
        steps_per_batch=1,
        backwards=1,
        trains="affine parameters of normalisation layers",
        paper="https://arxiv.org/abs/2306.05401",
    )

    batches: Tensor

    def __init__(
        self,
        every: int = 1000,
        margin: float = 0.4,
        redundancy: float = 0.05,
        select: Select = Select(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(margin, redundancy, select)
        if every < 1:
            raise InputError(f"every={every}: need every >= 1")
        self.every = every
        self.register_buffer("batches", torch.tensor(0))

    def reset(self) -> None:
        """Forget the moving average of predictions, and count from zero."""
        super().reset()
        self.batches.zero_()

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """One step on the selected samples, if there are any."""
        output = super().adapt(model, x, updater)
        self.batches += 1
        return output

    def sit_out(self, model: nn.Module, x: Tensor, updater: Updater) -> None:
        """As ETA; the batch counts."""
        super().sit_out(model, x, updater)
        self.batches += 1

    def wants_reset(self) -> ResetScope | None:
        """Everything, once the interval is over."""
        return ResetScope.ALL if int(self.batches) >= self.every else None
