"""Estimates of the target's class prior from the predictions on the stream."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tta.adapters.label_shift_source import SourceFigures
from tta.errors import InputError
from tta.functional.label_shift import black_box_shift, class_prior

Share = Callable[[Tensor], Tensor]
"""Mean of a tensor over processes."""


class PriorEstimator(nn.Module, ABC):
    """Base of the estimators: all state in buffers, so that a resumed stream goes on bit for bit.

    Attributes:
        prior: The estimate, float32, shape ``(C,)``; of no class before :meth:`prepare`.
        logits: What :meth:`update` gets: logits ``adapted`` to the last estimate (those that the method returns), of
            the ``raw`` head of the source, or of the head for the ``uniform`` prior. All on the features of the pass
            in which the method predicts.
    """

    logits: str = "adapted"
    choices: ClassVar[tuple[str, ...]] = ("adapted", "raw", "uniform")
    prior: Tensor

    def __init__(self, logits: str) -> None:
        super().__init__()
        if logits not in self.choices:
            raise InputError(f"logits={logits!r}: {type(self).__name__} takes {', '.join(self.choices)}")
        self.logits = logits
        self.register_buffer("prior", torch.empty(0))

    def prepare(self, source: SourceFigures) -> None:
        """Make the state for the classes of a source, as :meth:`reset` leaves it.

        Raises:
            InputError: If the source lacks what the estimator needs.
        """
        self.prior = self.start(source)

    def start(self, source: SourceFigures) -> Tensor:
        """The estimate before the first batch: the uniform prior, unless a subclass says otherwise."""
        return torch.full_like(source.prior, 1 / len(source.prior))

    def reset(self, source: SourceFigures) -> None:
        """Back to the start."""
        self.prior.copy_(self.start(source))

    @abstractmethod
    def update(self, logits: Tensor, source: SourceFigures, share: Share) -> None:
        """Take in a batch.

        Args:
            logits: As :attr:`logits` says, float32, shape ``(B, C)``; ``B`` is 0 on a process that has no finite image
                while others have.
            source: What is known of the source.
            share: Mean over processes; all of them call it equally often.
        """


def _mean_over_all(rows: Tensor, share: Share) -> Tensor | None:
    """Mean row over the batches of all processes, or ``None`` if nobody has one."""
    total = share(torch.cat([rows.sum(dim=0), rows.new_tensor([float(len(rows))])]))
    return total[:-1] / total[-1] if bool(total[-1] > 0) else None


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value < 1.0:
        raise InputError(f"{name}={value}: need 0 <= {name} < 1")


class MovingAverage(PriorEstimator):
    """Moving average of the mean softmax of each batch.

    Known of the paper is the moving average of predictions on the target. Not known, hence arguments: from which
    logits, how long, and from where it starts. Soft predictions, since hard ones throw away what is known of the
    doubtful samples. The average feeds on itself where logits are ``adapted``: what it believes raises what it sees.

    Args:
        logits: ``adapted`` (figure 3 draws the prediction of the step before), ``raw`` or ``uniform``.
        momentum: Weight of the past at each batch, in [0, 1). With 0.9 ten batches of 64 are remembered, enough for
            ten classes.
        start: ``uniform``, equally far from both sides, or ``source``, right if nothing has shifted.

    Raises:
        InputError: For a value out of range.

    References:
        Label Shift Adapter for Test-Time Adaptation under Covariate and Label Shifts, ICCV 2023.
    """

    def __init__(
        self,
        logits: Literal["adapted", "raw", "uniform"] = "adapted",
        momentum: float = 0.9,
        start: Literal["uniform", "source"] = "uniform",
    ) -> None:
        super().__init__(logits)
        _check_share("momentum", momentum)
        if start not in ("uniform", "source"):
            raise InputError(f"start={start!r}: choose from uniform, source")
        self.momentum, self.start_at = momentum, start

    def start(self, source: SourceFigures) -> Tensor:
        """The uniform or the source prior."""
        return source.prior.clone() if self.start_at == "source" else super().start(source)

    def update(self, logits: Tensor, source: SourceFigures, share: Share) -> None:
        """Move a little towards the mean prediction."""
        mean = _mean_over_all(logits.softmax(dim=1), share)
        if mean is not None:
            self.prior.lerp_(mean, 1 - self.momentum)


class BlackBox(PriorEstimator):
    """Inverts the confusion of the classifier: a moving average of mean posteriors, solved for the prior.

    Needs a companion, which holds the confusion on held-out source images. It assumes that images of a class look on
    the target as on the source, so corruptions bias it; where the confusion is nearly singular it is noisy.

    Args:
        logits: ``raw`` or ``uniform``; their calibrated posteriors count, not their arg max.
        momentum: Weight of the past at each batch, in [0, 1).
        ridge: Regularisation towards no shift from the uniform prior, at least 0; see ``black_box_shift``.

    Raises:
        InputError: For a value out of range, or without a companion.

    References:
        Lipton et al., ICML 2018, https://arxiv.org/abs/1802.03916.
    """

    choices = ("raw", "uniform")
    mean: Tensor

    def __init__(self, logits: Literal["raw", "uniform"] = "raw", momentum: float = 0.95, ridge: float = 0.1) -> None:
        super().__init__(logits)
        _check_share("momentum", momentum)
        if not ridge >= 0.0:
            raise InputError(f"ridge={ridge}: need ridge >= 0")
        self.momentum, self.ridge = momentum, ridge
        self.register_buffer("mean", torch.empty(0))

    def prepare(self, source: SourceFigures) -> None:
        """Start where the source would be under the uniform prior.

        Raises:
            InputError: Without a companion.
        """
        if not source.calibrated:
            raise InputError("BlackBox needs the confusion of the source, which a companion holds: give companion=")
        super().prepare(source)
        self.mean = source.confusion(self.logits).mean(dim=1)

    def reset(self, source: SourceFigures) -> None:
        """Back to the start."""
        super().reset(source)
        self.mean.copy_(source.confusion(self.logits).mean(dim=1))

    def update(self, logits: Tensor, source: SourceFigures, share: Share) -> None:
        """Move the mean posterior, and solve for the prior."""
        mean = _mean_over_all(source.posteriors(self.logits, logits), share)
        if mean is None:
            return
        self.mean.lerp_(mean, 1 - self.momentum)
        uniform = torch.full_like(source.prior, 1 / len(source.prior))
        joint = source.confusion(self.logits) * uniform
        self.prior.copy_(black_box_shift(self.mean, joint, uniform, self.ridge))


class OraclePrior(PriorEstimator):
    """The given prior at all times: what a correction could do if the estimate were right. For analysis.

    Args:
        target_prior: Class counts or probabilities of the target, one per class; zeros are allowed.

    Raises:
        InputError: If they are not numbers of at least 0, or not as many as there are classes.
    """

    def __init__(self, target_prior: Sequence[float]) -> None:
        super().__init__("adapted")
        self.target_prior = list(target_prior)

    def start(self, source: SourceFigures) -> Tensor:
        """The given prior."""
        if len(self.target_prior) != len(source.prior):
            raise InputError(f"target_prior has {len(self.target_prior)} numbers for {len(source.prior)} classes")
        floored = [max(value, 1e-9) if value >= 0 else value for value in self.target_prior]
        return class_prior(floored, "target_prior").to(source.prior.device)

    def update(self, logits: Tensor, source: SourceFigures, share: Share) -> None:
        """Nothing to learn."""
