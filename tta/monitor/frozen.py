"""The frozen source model, run beside the adapted one."""

import copy

import torch
from torch import Tensor, nn

from tta.adapters.base import checked_logits


class FrozenSource:
    """A copy of a model as it is now that stays so.

    Parameters that do not require gradients are shared with the original, not copied.

    Args:
        model: The prepared model with source weights.
    """

    def __init__(self, model: nn.Module) -> None:
        shared = {id(p): p for p in model.parameters() if not p.requires_grad}
        self.model = copy.deepcopy(model, dict(shared)).eval().requires_grad_(False)

    def to(self, device: torch.device) -> "FrozenSource":
        """Move the copy."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Logits of a batch, shape ``(B, C)``, float32; non-finite pixels are taken as zero."""
        return checked_logits(self.model(x.nan_to_num(0.0, 0.0, 0.0)))
