"""How often the frozen source model is run beside the adapted one."""

import torch
from torch import Tensor

from tta.errors import InputError

DEFAULT_BUDGET = 1 / 30
"""Share of the adapter's own passes that the comparison may cost by default."""

SMALLEST_RUN = 32
"""Samples that wait for each other, since a forward pass of a few costs nearly as much."""


class SourceBudget:
    """Decides on which samples of a batch the frozen source model is run.

    Depends on counts alone, not on the clock, so a resumed run decides as an uninterrupted one.

    Args:
        share: Share of all samples, in ``(0, 1]``; ``None`` for a thirtieth of the passes that the adapter spends:
            forwards, and backwards, which cost about as much where only normalisation layers learn.

    Raises:
        InputError: If ``share`` is out of range.
    """

    def __init__(self, share: float | None = None) -> None:
        if share is not None and not 0.0 < share <= 1.0:
            raise InputError(f"source_share={share}: need 0 < source_share <= 1")
        self.share = share

    def rows(self, batch_size: int, samples: int, passes: int, compared: int) -> Tensor:
        """Rows of the current batch to run the source model on.

        Args:
            batch_size: Samples in the batch.
            samples: Samples so far, the batch included.
            passes: Samples that the adapter has sent forward so far, plus those it has sent backward.
            compared: Samples that the source model was run on so far.

        Returns:
            Rows, evenly spaced, shape ``(R,)``, int64, possibly empty.
        """
        allowed = DEFAULT_BUDGET * passes if self.share is None else self.share * samples
        count = min(int(allowed + 1e-9) - compared, batch_size)
        if count < min(batch_size, SMALLEST_RUN):
            return torch.empty(0, dtype=torch.int64)
        return torch.arange(count) * batch_size // count
