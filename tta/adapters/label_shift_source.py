"""What a label-shift correction knows of the source: class prior, trained network, calibration, confusion."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tta.adapters.label_shift_network import KIND, HeadChange, LabelShiftNetwork, head_logits
from tta.companion import Companion
from tta.errors import InputError
from tta.functional.label_shift import class_prior

HEADS = ("raw", "uniform")
"""Heads whose logits a prior can be estimated from: the source's, and the one that the network makes for the uniform
prior (the source's minus the log source prior, where there is no network)."""


class SourceFigures(nn.Module):
    """Figures of the source, in buffers, and the trained network if there is one.

    Posteriors are for the uniform prior whatever the head: an estimate needs likelihood ratios between classes, and
    these are what the posteriors of a uniform prior are proportional to.

    Args:
        companion: A companion that ``LabelShiftTraining`` made, or the path of its file.
        source_prior: Class counts or probabilities of the source; those of the companion if ``None``. The network keeps
            the prior that it was trained with.

    Raises:
        InputError: If there is neither, they contradict each other, or the companion is not one of LabelShift.
    """

    prior: Tensor
    temperatures: Tensor
    biases: Tensor
    confusions: Tensor
    means: Tensor

    def __init__(self, companion: str | Path | Companion | None, source_prior: Sequence[float] | None) -> None:
        super().__init__()
        if companion is not None:
            companion = Companion.of(companion, KIND)
        self.network = LabelShiftNetwork.from_companion(companion) if companion is not None else None
        self.register_buffer("prior", _prior(self.network, source_prior))
        classes = len(self.prior)
        tensors = companion.tensors if companion is not None else {}
        self.calibrated = f"{HEADS[0]}.temperatures" in tensors
        no_offset = {"raw": -self.prior.log(), "uniform": torch.zeros(classes)}
        for name, default in (
            ("temperatures", dict.fromkeys(HEADS, torch.ones(()))),
            ("biases", no_offset),
            ("confusions", dict.fromkeys(HEADS, torch.eye(classes))),
            ("means", dict.fromkeys(HEADS, torch.full((3, classes), 1 / classes))),
        ):
            rows = [tensors.get(f"{head}.{name}", default[head]).float() for head in HEADS]
            self.register_buffer(name, torch.stack(rows))

    def check_head(self, head: nn.Linear) -> None:
        """Refuse a classifier that these figures are not of.

        Raises:
            InputError: If class count or feature size differ.
        """
        if head.out_features != len(self.prior):
            raise InputError(
                f"the source prior is of {len(self.prior)} classes and the classifier's head has {head.out_features}: "
                "give the companion that LabelShiftTraining made for this classifier"
            )
        if self.network is not None and self.network.features != head.in_features:
            raise InputError(
                f"the companion was trained on {self.network.features} features and the classifier's head takes "
                f"{head.in_features}: give the companion that LabelShiftTraining made for this classifier"
            )

    @torch.no_grad()
    def logits(self, which: str, head: nn.Linear, features: Tensor) -> Tensor:
        """Logits of the ``raw`` or the ``uniform`` head, shape ``(B, C)``, float32, of features ``(B, D)``."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            if which == "uniform":
                return self.change_for_uniform(head).logits(head, features)
            return head_logits(head, features)

    def change_for_uniform(self, head: nn.Linear) -> HeadChange:
        """What makes the head one for the uniform prior."""
        if self.network is None:
            return HeadChange(None, None, None, -self.prior.log())
        change: HeadChange = self.network(torch.full_like(self.prior, 1 / len(self.prior)), head)
        return change

    def posteriors(self, which: str, logits: Tensor) -> Tensor:
        """Calibrated posteriors under a uniform prior, shape ``(B, C)``, of logits of :meth:`logits`."""
        row = HEADS.index(which)
        return (logits / self.temperatures[row] + self.biases[row]).softmax(dim=1)

    def confusion(self, which: str) -> Tensor:
        """Mean posterior (row) of each class (column) on held-out source images, shape ``(C, C)``, columns sum to 1."""
        return self.confusions[HEADS.index(which)]

    def mean_posteriors(self, which: str) -> Tensor:
        """Mean posterior on held-out images drawn with the source, uniform and inverse prior, shape ``(3, C)``."""
        return self.means[HEADS.index(which)]


def _prior(network: LabelShiftNetwork | None, given: Sequence[float] | None) -> Tensor:
    if given is None:
        if network is None:
            raise InputError(
                "LabelShift got neither companion nor source_prior: give companion=the companion.safetensors that "
                "'tta fit' wrote with LabelShiftTraining, or for LogitAdjustment the class counts as source_prior="
            )
        return network.source_prior.clone()
    prior = class_prior(given, "source_prior")
    if network is not None and len(prior) != network.classes:
        raise InputError(
            f"source_prior has {len(prior)} numbers and the companion was trained for {network.classes} classes: leave "
            "it out"
        )
    return prior
