"""No adaptation."""

import torch
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, Facts, Updater, checked_logits


class Source(Adapter):
    """The frozen source model: the baseline of every comparison.

    Eval mode, no gradient, nothing changes. A batch of one, constant images and constant logits need no special care.
    """

    facts = Facts()

    def __init__(self) -> None:
        super().__init__()

    def prepare(self, model: nn.Module) -> None:
        """Freeze everything, eval mode."""
        model.eval()
        model.requires_grad_(False)

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """Predict only."""
        with torch.no_grad():
            return AdapterOutput(checked_logits(model(x)))
