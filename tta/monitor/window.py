"""The last samples of a stream."""

import torch
from torch import Tensor, nn


class SampleWindow(nn.Module):
    """A ring of the last samples, in buffers of fixed size.

    Args:
        size: Number of samples kept.
        num_classes: Number of classes ``C``.
    """

    probabilities: Tensor
    labels: Tensor
    source_predictions: Tensor
    seen: Tensor

    def __init__(self, size: int, num_classes: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("probabilities", torch.zeros(size, num_classes))
        self.register_buffer("labels", torch.full((size,), -1))
        self.register_buffer("source_predictions", torch.full((size,), -1))
        self.register_buffer("seen", torch.tensor(0))

    def append(self, probabilities: Tensor, labels: Tensor, source_predictions: Tensor) -> None:
        """Add samples; the oldest fall out.

        Args:
            probabilities: Class probabilities, shape ``(B, C)``.
            labels: True classes, shape ``(B,)``, int64, ``-1`` where unknown.
            source_predictions: The frozen source model's classes, shape ``(B,)``, int64, ``-1`` where it was not run.
        """
        start = int(self.seen) + max(0, len(labels) - self.size)
        slots = torch.arange(start, int(self.seen) + len(labels)) % self.size
        kept = len(slots)
        self.probabilities[slots] = probabilities[-kept:]
        self.labels[slots] = labels[-kept:]
        self.source_predictions[slots] = source_predictions[-kept:]
        self.seen += len(labels)

    def reveal(self, numbers: Tensor, labels: Tensor) -> None:
        """Write labels that were not known when their samples came.

        Args:
            numbers: How many samples came before each, shape ``(n,)``, int64; those that fell out are left alone.
            labels: True classes, shape ``(n,)``, int64.
        """
        present = numbers >= int(self.seen) - self.size
        self.labels[numbers[present] % self.size] = labels[present]

    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities, labels and source predictions of the samples present, in no particular order."""
        present = min(int(self.seen), self.size)
        return self.probabilities[:present], self.labels[:present], self.source_predictions[:present]
