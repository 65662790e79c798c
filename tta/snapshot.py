"""The source model's values of everything that a stream may change."""

import torch
from torch import Tensor, nn

from tta.adapters.weight_copy import copied, write_back
from tta.functional.gradients import overall_norm


class SourceSnapshot:
    """Values of everything in a model that a stream may change: trainable parameters and buffers.

    Args:
        model: The prepared model with source weights.
    """

    def __init__(self, model: nn.Module) -> None:
        self.values = copied(model)

    def to(self, device: torch.device) -> None:
        """Move the values."""
        self.values = {name: tensor.to(device) for name, tensor in self.values.items()}

    def restore(self, model: nn.Module) -> None:
        """Write the values back, in place."""
        write_back(model, self.values)

    def drift(self, model: nn.Module) -> Tensor:
        r"""Relative distance of the trainable parameters from the source, :math:`\|\theta-\theta_0\|/\|\theta_0\|`."""
        pairs = [(p.detach(), self.values[name]) for name, p in model.named_parameters() if p.requires_grad]
        if not pairs:
            return torch.zeros(())
        current, source = (list(values) for values in zip(*pairs, strict=True))
        return overall_norm(torch._foreach_sub(current, source)) / overall_norm(source)
