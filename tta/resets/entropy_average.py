"""SAR's recovery, for any method."""

import torch
from torch import Tensor

from tta.adapters.base import AdapterOutput, ResetScope
from tta.errors import InputError
from tta.functional.entropy import softmax_entropy
from tta.resets.base import Adaptation, ResetProtocol


class EntropyAverage(ResetProtocol):
    r"""A reset when the entropy of reliable predictions has become too low on average, as in SAR.

    A model that collapses grows certain of everything. The entropies of the returned logits that lie below
    ``margin * ln C`` are averaged over the batch, and over batches by
    :math:`\bar H \leftarrow m\,\bar H + (1-m)\,H`, the first value as it is. Below ``threshold`` everything is reset,
    after the step, and the average starts anew.

    A batch without a reliable sample (constant logits too, whose entropy is maximal) leaves the average as it is, and
    so do samples with non-finite pixels. A batch of one is reliable or is not.

    Args:
        threshold: Average in nats, above 0, below which the model is reset. Absolute, as published: 0.2 is 3 % of
            ``ln 1000`` but 9 % of ``ln 10``, so easy data with few classes may want less.
        margin: Entropy below which a sample is reliable, as a share of ``ln C``, above 0.
        momentum: :math:`m`, in ``[0, 1)``.

    Raises:
        InputError: For a value out of range.

    References:
        Towards Stable Test-Time Adaptation in Dynamic Wild World, ICLR 2023, algorithm 1,
        https://arxiv.org/abs/2302.12400. Differs from SAR, whose own recovery averages the loss at the worst point
        within its radius, which only SAR has; and from its code, where the old average survives the reset and can
        cause several in a row.
    """

    average: Tensor

    def __init__(self, threshold: float = 0.2, margin: float = 0.4, momentum: float = 0.9) -> None:
        super().__init__()
        if not threshold > 0.0 or not margin > 0.0:
            raise InputError(f"threshold={threshold}, margin={margin}: need both > 0")
        if not 0.0 <= momentum < 1.0:
            raise InputError(f"momentum={momentum}: need 0 <= momentum < 1")
        self.threshold = threshold
        self.margin = margin
        self.momentum = momentum
        self.register_buffer("average", torch.tensor(torch.nan))

    def after(self, adaptation: Adaptation, x: Tensor, output: AdapterOutput) -> ResetScope | None:
        """Everything, where the average is below the threshold."""
        logits = output.logits if output.finite is None else output.logits[output.finite]
        entropy = softmax_entropy(logits)
        reliable = entropy[entropy < self.margin * torch.log(torch.tensor(logits.shape[1]))]
        total = adaptation.updater.mean(torch.stack([reliable.sum(), reliable.new_tensor(float(len(reliable)))]))
        if total[1] > 0:
            mean = total[0] / total[1]
            known = not bool(self.average.isnan())
            self.average.copy_(self.momentum * self.average + (1.0 - self.momentum) * mean if known else mean)
        return ResetScope.ALL if bool(self.average < self.threshold) else None

    def restarted(self) -> None:
        """Average anew."""
        self.average.fill_(torch.nan)

    def reset(self) -> None:
        """Average anew."""
        self.restarted()

    def scalars(self) -> dict[str, Tensor]:
        """The average, in nats; NaN before the first."""
        return {"reliable_entropy_average": self.average.clone()}
