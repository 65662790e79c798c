"""When is a model called collapsed, and when is it called harmful."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tta.functional.entropy import effective_classes

MIN_SAMPLES = 50
"""Samples that both models predicted, below which nothing is called anything."""


@dataclass(frozen=True)
class Verdict:
    """Comparison of the adapted with the frozen source model on the same samples.

    Attributes:
        collapsed: Predictions concentrate while the source model's do not, see :func:`compare`.
        below_source: Accuracy is significantly below the source model's; always ``False`` without labels.
        effective_classes: Of the adapted model, in ``[1, C]``.
        source_effective_classes: Of the source model.
        top_class_share: Share of the adapted model's most frequent class, in ``[0, 1]``.
        source_top_class_share: Share of the source model's most frequent class.
        agreement: Share of equal predictions, in ``[0, 1]``.
        accuracy: Of the adapted model on the labelled samples; NaN without labels.
        source_accuracy: Of the source model on the same samples.
    """

    collapsed: bool
    below_source: bool
    effective_classes: float
    source_effective_classes: float
    top_class_share: float
    source_top_class_share: float
    agreement: float
    accuracy: float
    source_accuracy: float


def compare(predictions: Tensor, source_predictions: Tensor, labels: Tensor, num_classes: int) -> Verdict:
    r"""Compare two models on the same samples.

    *Collapsed*: the adapted model's effective number of classes is below half of the source model's, and it predicts
    its most frequent class at least twice as often as the source model predicts that same class. A stream of a single
    class concentrates both models and is not called collapse. Where the source model is mostly wrong on such a
    stream, an adapter that repairs it looks like a collapse; so where labels are known, a model that is at least as
    accurate as the source is never called collapsed.

    *Below source*: the paired difference of accuracies is worse than 5 points and more than three standard errors
    below zero. Needs labels.

    Both need at least 50 samples. The frozen source model compared with itself is neither, on any stream.

    Args:
        predictions: Classes predicted by the adapted model, shape ``(N,)``, int64.
        source_predictions: Classes predicted by the frozen source model, shape ``(N,)``, int64.
        labels: True classes, shape ``(N,)``, int64, ``-1`` where unknown.
        num_classes: Number of classes ``C``.

    Returns:
        The verdict; its figures are NaN for ``N = 0``.
    """
    counts = torch.bincount(predictions, minlength=num_classes)
    source_counts = torch.bincount(source_predictions, minlength=num_classes)
    total = len(predictions)
    effective, source_effective = float(effective_classes(counts)), float(effective_classes(source_counts))
    top = int(counts.argmax())
    known = labels >= 0
    correct = (predictions == labels)[known].float()
    difference = correct - (source_predictions == labels)[known].float()
    concentrated = total >= MIN_SAMPLES and effective < 0.5 * source_effective and counts[top] >= 2 * source_counts[top]
    at_least_source = len(difference) > 0 and float(difference.mean()) >= 0.0
    return Verdict(
        collapsed=bool(concentrated) and not at_least_source,
        below_source=_significantly_negative(difference, margin=0.05),
        effective_classes=effective,
        source_effective_classes=source_effective,
        top_class_share=float(counts.max()) / max(total, 1),
        source_top_class_share=float(source_counts.max()) / max(total, 1),
        agreement=float((predictions == source_predictions).float().mean()),
        accuracy=float(correct.mean()),
        source_accuracy=float((correct - difference).mean()),
    )


def _significantly_negative(difference: Tensor, margin: float) -> bool:
    if len(difference) < MIN_SAMPLES:
        return False
    mean, error = float(difference.mean()), float(difference.std()) / len(difference) ** 0.5
    return mean < -margin and mean + 3.0 * error < 0.0
