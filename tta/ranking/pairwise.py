"""Who is preferred to whom, and the mean and Borda scores.

Every function takes leading dimensions, which are kept.
"""

import numpy as np
from numpy.typing import NDArray


def mean_score(accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the tasks that are there.

    For accuracies alone: a mean over metrics of different scale follows the one with the largest numbers. Systems that
    were measured on different tasks are not comparable by it: who was spared the hard ones looks better.

    Args:
        accuracy: Of each system on each task, ``(..., T, S)``, NaN where missing.

    Returns:
        ``(..., S)``, in the unit of ``accuracy``; NaN for a system without a task.
    """
    known = ~np.isnan(accuracy)
    count = known.sum(axis=-2)
    total = np.where(known, accuracy, 0.0).sum(axis=-2)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def preferences(values: NDArray[np.float64], counts: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """On how many criteria each system is better than each other one.

    Only the order within a criterion counts, so the result is the same for any strictly increasing function of it.

    Args:
        values: Of each system under each criterion, larger is better, ``(..., C, S)``, NaN where missing.
        counts: How often each criterion counts, ``(..., C)``; once, if not given.

    Returns:
        ``(..., S, S)``: at ``[i, j]`` the criteria under which ``i`` is better than ``j``, equal ones for a half. A
        criterion that lacks ``i`` or ``j`` counts for neither. The diagonal is 0.
    """
    mine, other = values[..., :, None], values[..., None, :]
    better = (mine > other) + 0.5 * (mine == other)
    if counts is not None:
        better = better * counts[..., None, None]
    total: NDArray[np.float64] = better.sum(axis=-3)
    diagonal = np.arange(values.shape[-1])
    total[..., diagonal, diagonal] = 0.0
    return total


def majority(preferred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Preferences as one vote a pair.

    Args:
        preferred: Of :func:`preferences`, ``(..., S, S)``.

    Returns:
        ``(..., S, S)``: at ``[i, j]`` 1 where more prefer ``i`` to ``j``, a half where as many do, 0 where fewer do or
        nothing compares them.
    """
    reverse = np.swapaxes(preferred, -1, -2)
    votes: NDArray[np.float64] = (preferred > reverse) + 0.5 * ((preferred == reverse) & (preferred > 0))
    return votes


def borda(preferred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Borda score: how likely a system is better than a random other one on a random criterion that has both.

    Where nothing is missing this is the Borda count divided by its largest value.

    Args:
        preferred: Of :func:`preferences`, ``(..., S, S)``.

    Returns:
        ``(..., S)`` in [0, 1]; NaN for a system that shares no criterion with any other.

    References:
        What are the best Systems? New Perspectives on NLP Benchmarking, NeurIPS 2022,
        https://arxiv.org/abs/2202.03799.
    """
    common = preferred + np.swapaxes(preferred, -1, -2)
    share = np.where(common > 0, preferred / np.where(common > 0, common, 1.0), 0.0)
    opponents = (common > 0).sum(axis=-1)
    return np.where(opponents > 0, share.sum(axis=-1) / np.maximum(opponents, 1), np.nan)
