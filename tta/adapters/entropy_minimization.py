"""What Tent, EATA and SAR share: entropy minimisation on the affine parameters of normalisation layers."""

import math

import torch
from torch import Tensor, nn

from tta.adapters.base import Adapter, Updater
from tta.adapters.select import Select
from tta.errors import InputError
from tta.functional.normalization import batch_statistics_only


class EntropyMinimization(Adapter):
    """Base of methods that lower the entropy of predictions by changing selected layers.

    The model is put in eval mode, so dropout and stochastic depth are off (published code leaves them on), while batch
    normalisation uses batch statistics.

    Args:
        select: Layers whose parameters adapt.
    """

    def __init__(self, select: Select) -> None:
        super().__init__()
        self.select = select

    def prepare(self, model: nn.Module) -> None:
        """Eval mode with batch statistics; only the selected parameters require gradients.

        Raises:
            InputError: If no layer matches the selection.
        """
        model.eval()
        batch_statistics_only(model)
        self.select.freeze_rest(model)

    def sit_out(self, model: nn.Module, x: Tensor, updater: Updater) -> None:
        """Contribute zero gradients if other processes have something to learn."""
        if updater.any(False):
            with torch.enable_grad():
                updater.backward(no_contribution(model(x.nan_to_num(0.0, 0.0, 0.0))))
            updater.step()


def no_contribution(logits: Tensor) -> Tensor:
    """A zero loss whose gradients are exactly zero, also where logits are not finite."""
    return logits.nan_to_num(0.0, 0.0, 0.0).sum() * 0.0


def mean_or_zero(values: Tensor, logits: Tensor) -> Tensor:
    """Mean of ``values``, shape ``(S,)``, or a zero loss on the graph of ``logits`` when ``S`` is 0."""
    return values.mean() if len(values) else no_contribution(logits)


def entropy_margin(share: float, logits: Tensor) -> float:
    """Entropy below which a sample is reliable, in nats: ``share * ln C``."""
    return share * math.log(logits.shape[1])


def check_positive(**values: float) -> None:
    """Raise ``InputError`` naming the first argument that is not above zero."""
    for name, value in values.items():
        if not value > 0.0:
            raise InputError(f"{name}={value}: need {name} > 0")
