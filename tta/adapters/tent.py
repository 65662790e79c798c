"""Tent: entropy minimisation."""

import torch
from torch import Tensor, nn

from tta.adapters.base import AdapterOutput, Facts, Updater, checked_logits
from tta.adapters.entropy_minimization import EntropyMinimization
from tta.adapters.select import Select
from tta.functional.entropy import softmax_entropy


class Tent(EntropyMinimization):
    """Minimise the mean entropy of every batch over the affine parameters of normalisation layers.

    Returned logits are those from before the update. Every finite sample teaches. On constant logits the gradient of
    the entropy is zero and nothing changes. A batch of one works on LayerNorm and GroupNorm networks, where it is
    known to collapse sooner; on BatchNorm networks each layer must see more than one value per channel.

    Args:
        select: Layers whose parameters adapt; all normalisation layers by default. The authors take BatchNorm only;
            the other kinds are as in SAR's comparison. Measured learning rates: SGD with momentum 0.9 and 2.5e-4
            (ImageNet, batch 64), Adam with 1e-3 (CIFAR, batch 200).

    References:
        Tent: Fully Test-Time Adaptation by Entropy Minimization, ICLR 2021, eq. (1), https://arxiv.org/abs/2006.10726.
        Differs from the authors' code: dropout stays off, and running statistics stay in the state dict.
    """

    facts = Facts(
        needs_gradients=True,
        steps_per_batch=1,
        backwards=1,
        trains="affine parameters of normalisation layers",
        paper="https://arxiv.org/abs/2006.10726",
    )

    def __init__(self, select: Select = Select()) -> None:  # noqa: B008  frozen
        super().__init__(select)

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """One step on the mean entropy."""
        with torch.enable_grad():
            logits = model(x)
            output = checked_logits(logits)
            updater.any(True)
            loss = softmax_entropy(logits).mean()
            updater.backward(loss)
        updater.step()
        return AdapterOutput(output, loss=loss.detach())
