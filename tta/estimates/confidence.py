"""Accuracy from the confidence of predictions."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from tta.errors import InputError
from tta.estimates.base import AccuracyEstimate, predicted
from tta.functional.entropy import softmax_entropy


class AverageConfidence(AccuracyEstimate):
    """Take the largest softmax probability for the chance of being right; the mean over the batch is the estimate.

    Right only as far as the model is calibrated. Methods that lower entropy make a model confident whatever they do to
    its accuracy, and a collapsed model is most confident of all: beside the truth the estimate shows that, in its
    place it hides it. On constant logits it is ``1/C`` (or the softmax of that constant). It has no state.

    Args:
        temperature: The logits are divided by it, above 0. The code of AETTA (commit 322a115), where this estimate is
            a baseline, divides by 2, which its paper does not say; the usual definition is 1.

    Raises:
        InputError: If ``temperature`` is not above 0.

    References:
        A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks, ICLR 2017,
        https://arxiv.org/abs/1610.02136; as an estimate of accuracy, Predicting with Confidence on Unseen
        Distributions, ICCV 2021, https://arxiv.org/abs/2107.03315.
    """

    name = "average_confidence"
    paper = "https://arxiv.org/abs/2107.03315"

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not 0.0 < temperature < math.inf:
            raise InputError(f"temperature={temperature}: AverageConfidence needs a finite value > 0; 1 is usual")
        self.temperature = temperature

    def scores(self, model: nn.Module, x: Tensor, logits: Tensor) -> Tensor:
        """Largest softmax probability of every sample, shape ``(B,)``, in ``[1/C, 1]``."""
        return (logits.float() / self.temperature).softmax(dim=1).amax(dim=1)


class AverageThresholdedConfidence(AccuracyEstimate):
    """Count predictions above a threshold of confidence that was set on labelled source images (ATC).

    The threshold is the one above which lies as large a share of the source predictions as are right there. It moves
    with the model's confidence, so it too is fooled by methods that lower entropy. The source images must be ones that
    the model was not trained on: on its training images it is right almost always, the threshold falls to the least
    confident of them, and the estimate is too high everywhere. The paper scales temperatures on the source first; that
    changes the scores, not their order for ``"confidence"`` with two classes, and is left to the model.

    Source predictions of one confidence are counted above the threshold together. If all were wrong, nothing lies
    above it; if all were right, everything from the least confident on. A batch of one gives 0 or 1.

    Args:
        score: ``"entropy"``, the negative entropy, which the paper finds best, or ``"confidence"``, the largest
            softmax probability.

    Raises:
        InputError: For another score, or when asked before it has seen labelled source images.

    References:
        Leveraging Unlabeled Data to Predict Out-of-Distribution Performance, ICLR 2022, section 4,
        https://arxiv.org/abs/2201.04234. The authors' code takes the last value at or below the threshold for the
        threshold, so that one source prediction more lies above it.
    """

    name = "thresholded_confidence"
    paper = "https://arxiv.org/abs/2201.04234"
    needs_source_labels = True

    threshold: Tensor

    def __init__(self, score: Literal["entropy", "confidence"] = "entropy") -> None:
        super().__init__()
        if score not in ("entropy", "confidence"):
            raise InputError(f"score={score!r}: choose entropy or confidence")
        self.score = score
        self.register_buffer("threshold", torch.tensor(math.nan))

    def observe_source(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the threshold.

        Args:
            model: The classifier with source weights, in the modes in which it predicts.
            batches: Held-out images ``(B, ...)`` with their classes ``(B,)``, int64.

        Raises:
            InputError: If there is no image.
        """
        seen = [(self._score(logits), logits.argmax(dim=1) != labels) for logits, labels in predicted(model, batches)]
        if not seen:
            raise InputError("AverageThresholdedConfidence got no labelled source image: it needs at least one")
        values = torch.cat([score for score, _ in seen]).sort().values
        wrong = int(torch.cat([miss for _, miss in seen]).sum())
        self.threshold.fill_(float(values[wrong]) if wrong < len(values) else math.inf)

    def scores(self, model: nn.Module, x: Tensor, logits: Tensor) -> Tensor:
        """1 for predictions at or above the threshold, 0 below, shape ``(B,)``, float32."""
        if bool(self.threshold.isnan()):
            raise InputError(
                "AverageThresholdedConfidence has no threshold: call observe_source(model, batches) with held-out "
                "source images and their labels first"
            )
        return (self._score(logits) >= self.threshold).float()

    def _score(self, logits: Tensor) -> Tensor:
        return -softmax_entropy(logits) if self.score == "entropy" else logits.float().softmax(dim=1).amax(dim=1)
