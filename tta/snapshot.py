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
        # Kept, since walking through a model's modules takes longer than the arithmetic.
        self._trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]

    def to(self, device: torch.device) -> None:
        """Move the values."""
        self.values = {name: tensor.to(device) for name, tensor in self.values.items()}

    def restore(self, model: nn.Module) -> None:
        """Write the values back, in place."""
        write_back(model, self.values)

    def drift(self) -> Tensor:
        r"""Relative distance of the trainable parameters from the source, :math:`\|\theta-\theta_0\|/\|\theta_0\|`."""
        if not self._trained:
            return torch.zeros(())
        current = [parameter.detach() for _, parameter in self._trained]
        source = [self.values[name] for name, _ in self._trained]
        return overall_norm(torch._foreach_sub(current, source)) / overall_norm(source)
