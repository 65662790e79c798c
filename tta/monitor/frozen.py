"""The frozen source model, run beside the adapted one."""

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tta.adapters.base import checked_logits
from tta.snapshot import SourceSnapshot


class FrozenSource:
    """A model as it was when its source values were taken.

    Only modules are copied. Parameters that do not require gradients are the model's own; of everything else the
    source values are used, which the host holds anyway to go back to.

    Args:
        model: The prepared model with source weights.
        source: Its source values; taken from the model if not given.
    """

    def __init__(self, model: nn.Module, source: SourceSnapshot | None = None) -> None:
        tensors = (*model.parameters(), *model.buffers())
        self.model = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()
        self.source = SourceSnapshot(model) if source is None else source

    def to(self, device: torch.device) -> "FrozenSource":
        """Move the source values, and what is the model's own with them."""
        self.model.to(device)
        self.source.to(device)
        return self

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Logits of a batch, shape ``(B, C)``, float32; non-finite pixels are taken as zero."""
        return checked_logits(functional_call(self.model, self.source.values, (x.nan_to_num(0.0, 0.0, 0.0),)))
