"""What adapting gained along a stream, against models that stay frozen."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tta.errors import InputError

FALL_LEVEL = 0.01
"""One-sided level of the test of :func:`gain_falls`."""


def adaptation_regret(correct: NDArray[np.float64], frozen: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many more samples the best frozen model, known only in hindsight, had right up to each position.

    Negative where adapting is ahead of every frozen model. Which frozen model is best may change along the stream.

    Args:
        correct: The adapter on the samples of a stream, in their order: 1 right, 0 wrong, NaN unknown, ``(N,)``.
        frozen: The same of ``F`` frozen models, ``(F, N)``. A model of which nothing is known is left out.

    Returns:
        ``(N,)``, in samples. A sample that is not known of all counts for none.

    Raises:
        InputError: If shapes do not fit, or no sample is known of any frozen model.
    """
    if correct.ndim != 1 or frozen.ndim != 2 or frozen.shape[1:] != correct.shape:
        raise InputError(f"correct {correct.shape} and frozen {frozen.shape}: need (N,) and (F, N)")
    measured = frozen[~np.isnan(frozen).all(axis=1)] if frozen.size else frozen
    if not measured.size:
        raise InputError(f"frozen {frozen.shape}: no sample is known of any frozen model; the source model is one")
    ahead = measured - correct
    ahead[:, np.isnan(ahead).any(axis=0)] = 0.0
    regret: NDArray[np.float64] = ahead.cumsum(axis=1).max(axis=0)
    return regret


def gain_falls(correct: NDArray[np.float64], source: NDArray[np.float64], domains: NDArray[np.int64]) -> bool | None:
    """Whether an adapting model gains less over the frozen source at the end of a stream than at its beginning.

    The gain on a sample is 1 where only the adapting model is right, -1 where only the source is. Its mean over the
    first third of the known samples is compared with that over the last within each domain that occurs in both, so that
    neither a harder domain nor one for which adapting helps less makes a gain fall. Differences of domains are weighted
    by ``n m / (n + m)`` for ``n`` and ``m`` samples, and tested by Welch's t-test, one-sided at :data:`FALL_LEVEL`.

    It is a reason to look, no verdict on the method. A gain also falls where the source has little left to gain, and an
    adapter whose gain falls may be ahead all the way. Samples in a row that are alike (of one class, or adapted to in
    one lucky step) are taken for independent, which finds falls more often than the level says.

    Args:
        correct: The adapter on the samples of a stream, in their order: 1 right, 0 wrong, NaN unknown, ``(N,)``.
        source: The frozen source model on the same samples, ``(N,)``.
        domains: Number of the domain of each sample, ``(N,)``.

    Returns:
        Whether the gain falls; ``None`` where no domain has two known samples in the first third and two in the last.

    Raises:
        InputError: If the shapes differ.
    """
    if correct.ndim != 1 or not correct.shape == source.shape == domains.shape:
        raise InputError(
            f"correct {correct.shape}, source {source.shape} and domains {domains.shape}: need one of each a sample"
        )
    gain = correct - source
    known = ~np.isnan(gain)
    gain, domains = gain[known], domains[known]
    third = len(gain) // 3
    ends = slice(0, third), slice(len(gain) - third, len(gain))
    strata = [tuple(gain[end][domains[end] == domain] for end in ends) for domain in np.unique(domains)]
    strata = [pair for pair in strata if min(map(len, pair)) >= 2]
    return _falls(strata) if strata else None


def _falls(strata: list[tuple[NDArray[np.float64], ...]]) -> bool:
    """Welch's t-test, one-sided, of differences between first and last samples, stratified."""
    fall, variances, freedom = 0.0, [], []
    for first, last in strata:
        weight = len(first) * len(last) / (len(first) + len(last))
        fall += weight * (first.mean() - last.mean())
        variances += [weight**2 * part.var(ddof=1) / len(part) for part in (first, last)]
        freedom += [len(first) - 1, len(last) - 1]
    variance = np.array(variances)
    if not variance.any():
        return bool(fall > 0)
    degrees = variance.sum() ** 2 / (variance**2 / np.array(freedom)).sum()
    return bool(stats.t.sf(fall / np.sqrt(variance.sum()), degrees) < FALL_LEVEL)
