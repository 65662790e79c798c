"""Accuracy for its cost: Pareto set, anytime area, ARISE."""

import math

import numpy as np
from numpy.typing import NDArray

from tta.errors import InputError


def pareto_set(cost: NDArray[np.float64], accuracy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which systems no other one beats in both cost and accuracy.

    A system is beaten if another costs no more and is no less accurate, and is better in one of the two. Systems of
    equal cost and accuracy stand or fall together.

    Args:
        cost: ``(S,)``, any unit.
        accuracy: ``(S,)``. A system whose cost or accuracy is NaN is not in the set and beats none.

    Returns:
        ``(S,)``, bool.

    Raises:
        InputError: If the shapes differ.
    """
    _same_shape(cost, accuracy)
    no_worse = (cost[:, None] <= cost[None, :]) & (accuracy[:, None] >= accuracy[None, :])
    better = (cost[:, None] < cost[None, :]) | (accuracy[:, None] > accuracy[None, :])
    return ~(no_worse & better).any(axis=0) & ~np.isnan(cost) & ~np.isnan(accuracy)


def anytime_area(cost: NDArray[np.float64], accuracy: NDArray[np.float64], cheapest: float, dearest: float) -> float:
    """Best accuracy for what may be spent, averaged over budgets.

    Budgets are log-uniform in ``[cheapest, dearest]``: each doubling weighs the same. At each, the most accurate system
    that costs no more counts; 0 where none does.

    Args:
        cost: ``(S,)``, above 0.
        accuracy: ``(S,)``. A system whose cost or accuracy is NaN is left out.
        cheapest: Smallest budget, in the unit of ``cost``, above 0.
        dearest: Largest budget, above ``cheapest``.

    Returns:
        Area under the best accuracy over the logarithm of the budget, divided by its width: in the unit of
        ``accuracy``.

    Raises:
        InputError: If the shapes differ, or the budgets are not ``0 < cheapest < dearest``.
    """
    _same_shape(cost, accuracy)
    if not 0 < cheapest < dearest < math.inf:
        raise InputError(f"budgets {cheapest:g} to {dearest:g}: need 0 < cheapest < dearest, both finite")
    affordable = (cost <= dearest) & ~np.isnan(accuracy)
    order = np.argsort(cost[affordable], kind="stable")
    best = np.maximum.accumulate(np.concatenate([[0.0], accuracy[affordable][order]]))
    starts = np.concatenate([[cheapest], np.maximum(cost[affordable][order], cheapest), [dearest]])
    return float(best @ np.diff(np.log(starts)) / math.log(dearest / cheapest))


def arise(accuracy: NDArray[np.float64], cost: NDArray[np.float64]) -> float:
    """ARISE: what more compute brings, sample by sample, where losing a right answer weighs more than winning one.

    Over consecutive levels ``j`` of cost ``c`` a sample with accuracy ``a`` adds
    ``(a_j - a_{j-1}) (c_{j-1} / c_j)^{sign(a_j - a_{j-1})}``: what is won is divided by how many times more it costs,
    what is lost is multiplied by it.

    Args:
        accuracy: In [0, 1], at ``L`` levels of compute, of each sample ``(L, N)`` or already averaged ``(L,)``. A
            sample with NaN at a level is left out.
        cost: Of each level, ``(L,)``, above 0 and rising.

    Returns:
        Mean over samples; NaN if none is left. 0 if more compute changes nothing, below it if it harms.

    Raises:
        InputError: If shapes do not fit, or ``cost`` is not above 0 and rising.

    References:
        ARISE: An Adaptive Resolution-Aware Metric for Test-Time Scaling Evaluation in Large Reasoning Models, 2025,
        https://arxiv.org/abs/2510.06014. Its adaptive number of repetitions is not part of this.
    """
    if accuracy.ndim not in (1, 2) or cost.shape != accuracy.shape[:1]:
        raise InputError(f"accuracy {accuracy.shape} and cost {cost.shape}: need (L,) or (L, N), and (L,)")
    if not ((cost > 0).all() and (np.diff(cost) > 0).all()):
        raise InputError(f"cost {cost.tolist()}: the levels must be above 0 and rise")
    levels = accuracy.reshape(len(cost), -1)
    change = np.diff(levels[:, ~np.isnan(levels).any(axis=0)], axis=0)
    if not change.shape[1]:
        return math.nan
    ratio = (cost[:-1] / cost[1:])[:, None]
    return float((change * ratio ** np.sign(change)).sum(axis=0).mean())


def _same_shape(cost: NDArray[np.float64], accuracy: NDArray[np.float64]) -> None:
    if cost.ndim != 1 or cost.shape != accuracy.shape:
        raise InputError(f"cost {cost.shape} and accuracy {accuracy.shape}: need one of each a system")
