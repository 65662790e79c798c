"""The frozen source model, averaged over views: what the cost of adapting buys without adapting."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, Facts, Updater, checked_logits
from tta.adapters.views import MovedOverEdges, Transform, random_views
from tta.errors import InputError


class FrozenViews(Adapter):
    r"""Plain test-time augmentation: the mean prediction of the frozen source model over views of each image.

    The first view is the image itself, the others are random; returned is
    :math:`\ln \frac1n \sum_i p(\cdot \mid \text{view}_i)`. Eval mode, running statistics, no gradient: nothing of the
    model changes. It is the baseline for a method that spends several passes on a sample, given ``count`` equal to the
    method's cost in forward passes: a method that adapts should beat what the same arithmetic gives without adapting.

    ``count`` may be a fraction: the ``n``-th image of the stream, from 0 on, gets
    :math:`\lfloor (n+1)\,\text{count} \rfloor - \lfloor n\,\text{count} \rfloor` views, which is ``count`` rounded down
    or up, and as many forward passes. Views are drawn from ``seed``, the number of the image and that of the view, so
    predictions depend neither on how the stream is cut into batches nor, up to rounding, on other images. Images with
    non-finite pixels have no number, and their batch is predicted once more for them. After a reset numbers begin at 0.

    A batch of one and identical images need no special care; constant logits come back as :math:`-\ln C`. Images must
    lie in ``[0, 1]``, normalisation being part of the model, as views clip what lies outside.

    Args:
        count: Mean number of views of an image, finite and at least 1; 1 is the source model.
        views: Random transformation of an image ``(C, H, W)`` in ``[0, 1]``, on its device: any callable that draws
            from torch's global generator, whose results have one size, which the network takes. By default a rotation
            by up to 5 degrees, a shift by up to a sixteenth of the image and a scale of 0.95 to 1.05, over repeated
            edge pixels: no flip, which would make another character of a character.
        seed: Non-negative seed of the views.

    Raises:
        InputError: For a value out of range.

    References:
        ImageNet Classification with Deep Convolutional Neural Networks, NeurIPS 2012, section 4.1, for the mean of
        softmax outputs over views; Better Aggregation in Test-Time Augmentation, ICCV 2021,
        https://arxiv.org/abs/2011.11156, for where it harms. That parallel samples of an unchanged model are the
        rival at equal compute: Reasoning Models Can Be Effective Without Thinking, 2025,
        https://arxiv.org/abs/2504.09858.
    """

    facts = Facts(forwards=6, augments=True, paper="https://arxiv.org/abs/2011.11156")

    images_seen: Tensor

    def __init__(self, count: float = 6.0, views: Transform | None = None, seed: int = 0) -> None:
        super().__init__()
        if not 1.0 <= count < math.inf or seed < 0:
            raise InputError(f"count={count}, seed={seed}: need a finite count >= 1 and seed >= 0")
        self.count = count
        self.views = MovedOverEdges(5.0, 1 / 32, (0.95, 1.05), blur=None) if views is None else views
        self.seed = seed
        self.facts = replace(type(self).facts, forwards=math.ceil(count))
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))

    def prepare(self, model: nn.Module) -> None:
        """Freeze everything, eval mode."""
        model.eval()
        model.requires_grad_(False)

    def reset(self) -> None:
        """Views are drawn and shared out as at the start."""
        self.images_seen.zero_()

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """Predict only."""
        logits = self.predict(model, x)
        self.images_seen += len(x)
        return AdapterOutput(logits)

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """Logarithms of the mean probabilities ``(B, C)``, over the views that the next images of the stream get."""
        x = x.nan_to_num(0.0, 0.0, 0.0)
        first = int(self.images_seen)
        counts = torch.tensor([self._views_of(first + row) for row in range(len(x))])
        total = _log_probabilities(model, x)
        for view in range(1, int(counts.max())):
            rows = (counts > view).nonzero().squeeze(1)
            shown = torch.cat([self._view(x[row : row + 1], first + row, view) for row in rows.tolist()])
            there = rows.to(x.device)
            total[there] = torch.logaddexp(total[there], _log_probabilities(model, shown))
        return total - counts.to(x.device, total.dtype).log().unsqueeze(1)

    def _view(self, image: Tensor, number: int, view: int) -> Tensor:
        (shown,) = random_views(image, self.views, (self.seed, number, view), count=1)
        return shown

    def _views_of(self, number: int) -> int:
        """How many views the image of a number gets, in exact arithmetic."""
        numerator, denominator = float(self.count).as_integer_ratio()
        return (number + 1) * numerator // denominator - number * numerator // denominator


@torch.no_grad()
def _log_probabilities(model: nn.Module, x: Tensor) -> Tensor:
    return checked_logits(model(x)).log_softmax(dim=1)
