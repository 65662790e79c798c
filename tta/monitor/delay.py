"""Samples that wait for their labels."""

import torch
from torch import Tensor, nn


class LabelDelay(nn.Module):
    """A queue of predicted samples whose labels are not known yet, in a buffer of fixed size.

    Args:
        samples: Number of later samples after which a label is known; 0 hands every row on at once.
        columns: Figures per sample.
    """

    waiting: Tensor
    count: Tensor

    def __init__(self, samples: int, columns: int) -> None:
        super().__init__()
        self.samples = samples
        self.register_buffer("waiting", torch.zeros(samples, columns, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(0))

    def push(self, rows: Tensor) -> Tensor:
        """Queue samples.

        Args:
            rows: Shape ``(B, columns)``, float64, in stream order.

        Returns:
            The rows whose labels are known now, oldest first, shape ``(n, columns)``.
        """
        queue = torch.cat([self.waiting[: int(self.count)], rows])
        due = max(0, len(queue) - self.samples)
        self._keep(queue[due:])
        return queue[:due]

    def release(self) -> Tensor:
        """All rows that still wait, oldest first; none is left."""
        queue = self.waiting[: int(self.count)].clone()
        self._keep(queue[:0])
        return queue

    def _keep(self, rows: Tensor) -> None:
        self.waiting[: len(rows)] = rows
        self.count.fill_(len(rows))
