"""Ways to make a classifier of the source's class prior one of another prior."""

from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import nn

from tta.adapters.label_shift_network import HeadChange
from tta.adapters.label_shift_source import SourceFigures
from tta.errors import InputError
from tta.functional.label_shift import logit_adjustment


class Correction(ABC):
    """A map from a class prior to a change of the head."""

    def check(self, source: SourceFigures) -> None:  # noqa: B027  most corrections need no more than the prior
        """Raise ``InputError`` if the source lacks what the correction needs."""

    @abstractmethod
    def change(self, prior: torch.Tensor, head: nn.Linear, source: SourceFigures) -> HeadChange:
        """What to do to the head.

        Args:
            prior: The estimate, float32, shape ``(C,)``.
            head: The head.
            source: What is known of the source.

        Returns:
            The change, detached.
        """


class NetworkCorrection(Correction):
    """The label-shift adapter: the change that a trained network makes of the degree of imbalance.

    References:
        Label Shift Adapter for Test-Time Adaptation under Covariate and Label Shifts, ICCV 2023, figure 3,
        https://arxiv.org/abs/2308.08810.
    """

    def check(self, source: SourceFigures) -> None:
        """A trained network must be there.

        Raises:
            InputError: Without one.
        """
        if source.network is None:
            raise InputError(
                "NetworkCorrection needs a trained network: give companion=the companion.safetensors that 'tta fit' "
                "wrote with LabelShiftTraining, or use correction=LogitAdjustment()"
            )

    @torch.no_grad()
    def change(self, prior: torch.Tensor, head: nn.Linear, source: SourceFigures) -> HeadChange:
        """Ask the network."""
        self.check(source)
        with torch.autocast(prior.device.type, enabled=False):
            return cast(HeadChange, cast(nn.Module, source.network)(prior, head))


class LogitAdjustment(Correction):
    """The post-hoc baseline: the log ratio of the two priors is added to the logits, and nothing is trained.

    Args:
        strength: Factor of the log ratio, at least 0; 1 is right for calibrated logits.
        floor: Added to every probability of the estimate, above 0, as a share of the uniform probability: a class
            estimated at nothing stays possible.

    Raises:
        InputError: For a value out of range.

    References:
        Long-tail learning via logit adjustment, ICLR 2021, section 4.1, https://arxiv.org/abs/2007.07314.
    """

    def __init__(self, strength: float = 1.0, floor: float = 1e-2) -> None:
        if not strength >= 0.0 or not floor > 0.0:
            raise InputError(f"strength={strength}, floor={floor}: need strength >= 0 and floor > 0")
        self.strength, self.floor = strength, floor

    @torch.no_grad()
    def change(self, prior: torch.Tensor, head: nn.Linear, source: SourceFigures) -> HeadChange:
        """A bias."""
        return HeadChange(None, None, None, self.strength * logit_adjustment(prior, source.prior, self.floor))
