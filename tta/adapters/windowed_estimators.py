"""Estimates of the target's class prior from the posteriors of a window."""

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor

from tta.adapters.label_shift_source import SourceFigures
from tta.adapters.prior_estimators import PriorEstimator, Share
from tta.errors import InputError
from tta.functional.label_shift import SMALLEST, expectation_maximization, log_slope_degree


class WindowedEstimator(PriorEstimator):
    """Base of estimates from the calibrated posteriors of the last ``window`` samples.

    Posteriors do not depend on the estimate, so that it cannot feed on itself. With several processes each keeps a
    window of its own, and their estimates are averaged.

    Args:
        logits: ``raw`` or ``uniform``.
        window: Samples to look back over, at least 1. Longer is steadier and slower to follow a change.

    Raises:
        InputError: For a value out of range.
    """

    choices = ("raw", "uniform")
    of_own_samples = ("posteriors", "seen")
    posteriors: Tensor
    seen: Tensor

    def __init__(self, logits: str, window: int) -> None:
        super().__init__(logits)
        if window < 1:
            raise InputError(f"window={window}: need window >= 1")
        self.window = window
        self.register_buffer("posteriors", torch.empty(0, 0))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def prepare(self, source: SourceFigures) -> None:
        """Make an empty window."""
        super().prepare(source)
        self.posteriors = source.prior.new_zeros(self.window, len(source.prior))

    def reset(self, source: SourceFigures) -> None:
        """Empty the window."""
        super().reset(source)
        self.posteriors.zero_()
        self.seen.zero_()

    def update(self, logits: Tensor, source: SourceFigures, share: Share) -> None:
        """Put the batch into the window and estimate anew."""
        rows = source.posteriors(self.logits, logits)[-self.window :]
        places = (int(self.seen) + torch.arange(len(rows), device=rows.device)) % self.window
        self.posteriors[places] = rows
        self.seen += len(rows)
        self.prior.copy_(share(self.estimate(self.posteriors[: min(int(self.seen), self.window)], source)))

    @abstractmethod
    def estimate(self, posteriors: Tensor, source: SourceFigures) -> Tensor:
        """The prior, float32, shape ``(C,)``, from posteriors under a uniform prior, shape ``(N, C)``, ``N >= 0``."""


class ExpectationMaximization(WindowedEstimator):
    """Maximum a posteriori estimate by EM: any prior can come out.

    Posteriors are calibrated on held-out source images where there is a companion. Their errors under covariate shift
    remain, and so does what batch statistics do to the features: the batch's mean, in which a part of the prior shows,
    is taken out of them.

    Args:
        logits: ``raw`` or ``uniform``.
        window: Samples to look back over, at least 1.
        concentration: Of a symmetric Dirichlet prior over priors, at least 1: as if ``concentration - 1`` more samples
            of each class had been seen. It rules while the window is nearly empty, and keeps classes possible.

    Raises:
        InputError: For a value out of range.

    References:
        Saerens et al., Neural Computation 2002; https://arxiv.org/abs/1901.06852 (bias-corrected calibration).
    """

    def __init__(
        self, logits: Literal["raw", "uniform"] = "raw", window: int = 1000, concentration: float = 2.0
    ) -> None:
        super().__init__(logits, window)
        if not concentration >= 1.0:
            raise InputError(f"concentration={concentration}: need concentration >= 1")
        self.concentration = concentration

    def estimate(self, posteriors: Tensor, source: SourceFigures) -> Tensor:
        """Iterate to the fixed point."""
        uniform = torch.full_like(source.prior, 1 / len(source.prior))
        return expectation_maximization(posteriors, uniform, concentration=self.concentration)


class CalibratedDegree(WindowedEstimator):
    r"""How far between the source's prior and its inverse the target is: the one number that the network takes.

    The degree of imbalance (slope of logarithms) of the mean posterior is compared with what it was on held-out source
    images drawn with the source, the uniform and the inverse prior, and interpolated between these: 1, 0 and -1. The
    estimate is the prior proportional to ``source^degree``. Nothing has to be right about the posteriors but that they
    move with the prior as they did on the source; so the bias of batch statistics is in the calibration, where
    ``LabelShiftTraining(statistics="batch")`` made it. One number needs few samples.

    It sees imbalance along the source's alone: a target that prefers other classes than the source's head or tail
    is taken for a mixture. ``ExpectationMaximization`` can express such a prior and ``LogitAdjustment`` apply it.

    Args:
        logits: ``raw`` or ``uniform``.
        window: Samples to look back over, at least 1.
        shrinkage: Uniform samples that the degree is averaged with, at least 0: it keeps the first batches calm.

    Raises:
        InputError: For a value out of range, or without a companion.
    """

    def __init__(self, logits: Literal["raw", "uniform"] = "raw", window: int = 1000, shrinkage: float = 32.0) -> None:
        super().__init__(logits, window)
        if not shrinkage >= 0.0:
            raise InputError(f"shrinkage={shrinkage}: need shrinkage >= 0")
        self.shrinkage = shrinkage

    def prepare(self, source: SourceFigures) -> None:
        """Make an empty window.

        Raises:
            InputError: Without a companion.
        """
        if not source.calibrated:
            raise InputError(
                "CalibratedDegree needs what a companion holds of held-out source images: give companion=, or use "
                "estimator=ExpectationMaximization() or MovingAverage()"
            )
        super().prepare(source)

    def estimate(self, posteriors: Tensor, source: SourceFigures) -> Tensor:
        """Interpolate the degree between those of the three draws."""
        if len(posteriors) == 0:
            return self.start(source)
        observed = log_slope_degree(
            torch.cat([posteriors.mean(dim=0)[None], source.mean_posteriors(self.logits)]), source.prior
        )
        degree = _between(observed[0], observed[1:]) * len(posteriors) / (len(posteriors) + self.shrinkage)
        return (degree * source.prior.log()).softmax(dim=0)


def _between(value: Tensor, anchors: Tensor) -> Tensor:
    """Where a value is between three falling anchors that stand for 1, 0 and -1, within these."""
    head, middle, tail = anchors
    above: Tensor = ((value - middle) / (head - middle).clamp_min(SMALLEST)).clamp(0.0, 1.0)
    below: Tensor = ((middle - value) / (middle - tail).clamp_min(SMALLEST)).clamp(0.0, 1.0)
    return above - below
