"""Calibration over a stream, in constant memory."""

import torch
from torch import Tensor, nn


class StreamCalibration(nn.Module):
    """Expected calibration error, accumulated in bins.

    The same figure as ``torchmetrics.classification.MulticlassCalibrationError(norm="l1")``, which keeps every
    confidence it has seen and so grows with the stream. As there, a confidence of exactly 1 has a bin of its own.

    Args:
        bins: Number of equal bins of confidence.
    """

    confidence: Tensor
    correct: Tensor
    count: Tensor

    def __init__(self, bins: int = 15) -> None:
        super().__init__()
        for name in ("confidence", "correct", "count"):
            self.register_buffer(name, torch.zeros(bins + 1, dtype=torch.float64))

    def update(self, confidence: Tensor, correct: Tensor) -> None:
        """Add samples.

        Args:
            confidence: Probability of the predicted class, shape ``(N,)``, in ``[0, 1]``.
            correct: Whether the prediction was right, shape ``(N,)``, bool.
        """
        boundaries = torch.linspace(0.0, 1.0, len(self.count), dtype=confidence.dtype)
        index = torch.bucketize(confidence, boundaries, right=True) - 1
        self.confidence.index_add_(0, index, confidence.double())
        self.correct.index_add_(0, index, correct.double())
        self.count.index_add_(0, index, torch.ones_like(confidence, dtype=torch.float64))

    def compute(self) -> float:
        """The error so far, in ``[0, 1]``; NaN before the first sample."""
        return float((self.confidence - self.correct).abs().sum() / self.count.sum())
