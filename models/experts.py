"""Classifiers that consist of several experts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tta.errors import InputError


class MultiExpert(nn.Module, ABC):
    """What classifiers of several experts share: the logits of each expert, and their mean as the prediction.

    A subclass sets ``num_experts`` and writes :meth:`forward_experts`.
    """

    num_experts: int

    @abstractmethod
    def forward_experts(self, x: Tensor) -> list[Tensor]:
        """Logits ``(B, C)`` of each expert, of images ``(B, 3, H, W)`` in ``[0, 1]``."""

    def forward(self, x: Tensor, per_expert: bool = False) -> Tensor:
        """Mean logits over the experts, ``(B, C)``, of images ``(B, 3, H, W)`` in ``[0, 1]``.

        Args:
            x: Images.
            per_expert: Return the logits of every expert, ``(B, E, C)``, instead.
        """
        logits = torch.stack(self.forward_experts(x), dim=1)
        return logits if per_expert else logits.mean(dim=1)

    def expert_logits(self, x: Tensor) -> Tensor:
        """Logits of every expert, ``(B, E, C)``, of images ``(B, 3, H, W)`` in ``[0, 1]``."""
        logits: Tensor = self(x, per_expert=True)
        return logits


class Experts(MultiExpert):
    """Independent classifiers as experts that share nothing.

    Args:
        experts: Classifiers with the same classes, each from images to logits.

    Raises:
        InputError: If there is none.
    """

    def __init__(self, experts: Sequence[nn.Module]) -> None:
        super().__init__()
        if not experts:
            raise InputError("experts: the list is empty; give at least one classifier")
        self.experts = nn.ModuleList(experts)
        self.num_experts = len(self.experts)

    def forward_experts(self, x: Tensor) -> list[Tensor]:
        """Logits ``(B, C)`` of each classifier."""
        return [expert(x) for expert in self.experts]


def check_num_experts(num_experts: int) -> int:
    """Return the number of experts if it is at least 1.

    Raises:
        InputError: If it is not.
    """
    if num_experts < 1:
        raise InputError(f"num_experts={num_experts}: need at least 1; 3 is published")
    return num_experts
