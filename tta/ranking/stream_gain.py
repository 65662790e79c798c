"""What adapting gained along a stream, against models that stay frozen."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tta.errors import InputError

ALARM_LEVEL = 0.01
"""One-sided level of the test of :func:`negative_progress`."""


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


def negative_progress(correct: NDArray[np.float64], source: NDArray[np.float64]) -> bool:
    """Alarm: the longer the model adapts, the less it gains over the frozen source.

    The gain on a sample is 1 where only the adapting model is right, -1 where only the source is. Its mean over the
    last third of the known samples is compared with that over the first by Welch's t-test, one-sided at
    :data:`ALARM_LEVEL`. The source has the same samples, so a stream that turns harder for both raises no alarm. One
    that turns to a shift for which adapting helps less does, and samples in a row that are alike make alarms likelier
    than the level says: it is a reason to look.

    Args:
        correct: The adapter on the samples of a stream, in their order: 1 right, 0 wrong, NaN unknown, ``(N,)``.
        source: The frozen source model on the same samples, ``(N,)``.

    Returns:
        Whether the gain falls. Never with fewer than six known samples.

    Raises:
        InputError: If the shapes differ.
    """
    if correct.ndim != 1 or correct.shape != source.shape:
        raise InputError(f"correct {correct.shape} and source {source.shape}: need one of each a sample")
    gain = correct - source
    gain = gain[~np.isnan(gain)]
    third = len(gain) // 3
    first, last = gain[:third], gain[len(gain) - third :]
    if third < 2:
        return False
    if first.std() == last.std() == 0:
        return bool(last[0] < first[0])
    return bool(stats.ttest_ind(first, last, equal_var=False, alternative="greater").pvalue < ALARM_LEVEL)
