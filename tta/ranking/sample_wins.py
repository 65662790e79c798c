"""Strength of systems from the samples on which one is right and another wrong."""

import choix
import numpy as np
from numpy.typing import NDArray


def wins(correct: NDArray[np.float64]) -> NDArray[np.float64]:
    """Count the samples on which one system is right and the other wrong.

    Args:
        correct: 1 right, 0 wrong, NaN unknown, float64, ``(S, N)``.

    Returns:
        ``(S, S)``, float64: at ``[i, j]`` the samples that ``i`` has right and ``j`` wrong, NaN where no sample is
        known of both; the diagonal is 0.
    """
    right, wrong = (correct == 1).astype(np.float64), (correct == 0).astype(np.float64)
    known = right + wrong
    counts = np.where(known @ known.T > 0, right @ wrong.T, np.nan)
    np.fill_diagonal(counts, 0.0)
    return counts


def plackett_luce(won: NDArray[np.float64]) -> NDArray[np.float64]:
    """Plackett-Luce strengths from wins between pairs, by iterative Luce spectral ranking.

    Of pairs alone this is the Bradley-Terry model, here on the samples of which just one of the two is right. The
    difference of two strengths is the logarithm of how often one system is right where the other is wrong, for one
    time that it is the other way round. If systems and samples follow a Rasch model, in which the log-odds of being
    right are the system's strength minus the sample's difficulty, then the difficulty drops out of these odds. So no
    bias comes from which samples a system was measured on, even when that depends on their difficulty and on the
    system; a mean accuracy is biased then. It does not hold if samples were left out because of how they turned out,
    nor exactly if systems do not agree on what is difficult.

    Each pair with a common sample gets half a win either way beside its own: strengths stay finite where one system
    never loses. Several samples count as independent, which they are not across pairs: the strengths do not suffer, but
    their uncertainty needs a bootstrap over samples.

    Args:
        won: Of :func:`~tta.ranking.wins`, or sums of them, ``(S, S)``; NaN where nothing compares a pair.

    Returns:
        Strengths, ``(S,)``, natural logarithms, with mean 0. Only systems that a chain of common samples links can be
        compared: of several such groups the largest has strengths (of equal ones the one with the first system), all
        others NaN. A system that nothing links to another is NaN.

    References:
        Fast and Accurate Inference of Plackett-Luce Models, NeurIPS 2015 (the library ``choix``); for measurements with
        gaps: ONEBench to Test Them All, 2024, https://arxiv.org/abs/2412.06745; the pair estimate of a Rasch model:
        Choppin, Item Bank Using Sample-free Calibration, Nature 219, 1968.
    """
    linked = np.linalg.matrix_power(~np.isnan(won), len(won))
    largest = np.flatnonzero(linked[linked.sum(axis=1).argmax()])
    strengths = np.full(len(won), np.nan)
    if len(largest) > 1:
        counts = np.nan_to_num(won + 0.5)[np.ix_(largest, largest)]
        np.fill_diagonal(counts, 0.0)
        strengths[largest] = choix.ilsr_pairwise_dense(counts, max_iter=10_000, tol=1e-9)
    return strengths
