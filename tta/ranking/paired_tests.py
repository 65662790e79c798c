"""Whether neighbours in an order differ by more than chance."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tta.ranking.experiment import Experiment

CONFIDENCE = 0.95
"""Of the intervals."""

SMALLEST_P = 1e-12
NEGLIGIBLE = 1e-40
"""Parts of a characteristic function below this are taken for 0: nearly all of it, soon."""


@dataclass(frozen=True)
class Comparison:
    """Two neighbours in the consensus order, on the samples that are known of both.

    Args:
        better: The system that the order puts first.
        worse: The system behind it.
        difference: Accuracy of ``better`` minus that of ``worse``, in [-1, 1]: below 0 where the order goes by other
            criteria against the samples. NaN where no sample is common.
        p: Two-sided p-value of :func:`sign_flip_p`, NaN where no sample is common.
        adjusted_p: The same, corrected for the number of neighbours by :func:`holm`.
        low: Lower end of the bootstrap interval of 95 % of ``difference``, over seeds and images, NaN where that is.
        high: Its upper end.
        tied: Whether as many criteria put one first as the other, so that nothing decides which of the two is ahead.
    """

    better: str
    worse: str
    difference: float
    p: float
    adjusted_p: float
    low: float
    high: float
    tied: bool


def compare_neighbours(
    experiment: Experiment, order: Sequence[int], preferred: NDArray[np.float64], margins: NDArray[np.float64]
) -> tuple[Comparison, ...]:
    """Test every system against the next one in an order.

    The units are images, not samples: what a system does on an image is added up over its occurrences in all blocks
    first, because an image that comes again, with another seed or in another stream, is no new evidence. So the test
    speaks of these runs on other images, not of other seeds. What adaptation owes to its luck in a run it takes for a
    difference between systems; the interval draws the seeds too.

    Args:
        experiment: What is ranked.
        order: Indices of systems, best first, ``(S,)``.
        preferred: Of :func:`~tta.ranking.preferences`, ``(S, S)``.
        margins: Of each pair in resamples of seeds and images, the samples that the first alone has right minus those
            that the second alone has, ``(R, S - 1)``, NaN where none is common.
    """
    pairs = list(itertools.pairwise(order))
    rows = [_difference(experiment, better, worse) for better, worse in pairs]
    adjusted = holm(np.array([p for _, p, _ in rows]))
    names = experiment.systems
    return tuple(
        Comparison(
            names[better],
            names[worse],
            difference,
            p,
            float(corrected),
            *_interval(drawn, common),
            bool(preferred[better, worse] == preferred[worse, better] > 0),
        )
        for (better, worse), (difference, p, common), corrected, drawn in zip(
            pairs, rows, adjusted, margins.T, strict=True
        )
    )


def _interval(margins: NDArray[np.float64], common: int) -> tuple[float, float]:
    there = margins[~np.isnan(margins)]
    if not (common and there.size):
        return math.nan, math.nan
    low, high = np.quantile(there / common, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _difference(experiment: Experiment, better: int, worse: int) -> tuple[float, float, int]:
    """Difference in accuracy, its p-value, and the number of common samples."""
    sample = np.concatenate([block.correct[better] - block.correct[worse] for block in experiment.blocks])
    images = np.concatenate([block.images for block in experiment.blocks])
    known = ~np.isnan(sample)
    if not known.any():
        return math.nan, math.nan, 0
    _, image = np.unique(images[known], return_inverse=True)
    by_image = np.rint(np.bincount(image, weights=sample[known])).astype(np.int64)
    return float(sample[known].mean()), sign_flip_p(by_image), int(known.sum())


def sign_flip_p(differences: NDArray[np.int64]) -> float:
    """Exact p-value of the sign-flip permutation test that two paired systems are alike.

    If they are, each unit's difference could as well have the other sign. The p-value is the probability that the sum
    under random signs is as far from 0 as the one observed, or farther. For whole numbers the distribution of that sum
    is known: its characteristic function is the product of ``cos(d t)`` over all differences, and one Fourier transform
    turns it back into probabilities. ``scipy.stats.permutation_test(permutation_type="samples")`` draws it at random
    beyond a dozen units: from 9,999 draws no p-value is below 1e-4, which a correction for many pairs uses up, and
    it depends on a seed. With differences of 0 and 1 alone this is the exact (binomial) McNemar test.

    Args:
        differences: Of one system minus the other, whole numbers, one a unit, ``(M,)``.

    Returns:
        Two-sided, in [1e-12, 1]: below that rounding in the transform hides it.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    reach = int(sizes @ counts)
    length = 1 << (2 * reach).bit_length()
    left, product = np.arange(length // 2 + 1), np.ones(length // 2 + 1)
    for index in np.argsort(-counts, kind="stable"):
        product = product * np.cos(left * sizes[index] * (2 * np.pi / length)) ** counts[index]
        matters = np.abs(product) > NEGLIGIBLE
        left, product = left[matters], product[matters]
    transform = np.zeros(length // 2 + 1)
    transform[left] = product
    probability = np.fft.irfft(transform, length)
    tail = probability[abs(int(differences.sum())) : reach + 1].sum()
    return float(np.clip(2 * tail, SMALLEST_P, 1.0))


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correct p-values for how many they are, by Holm's method.

    It bounds the chance of a single false finding, however the tests depend on each other. Those of neighbours do, as
    each system is in two of them, in a way for which the false discovery rate of Benjamini and Hochberg is not proven.

    Args:
        p: P-values, ``(n,)``; NaN is no test, and stays.

    Returns:
        ``(n,)``, in [0, 1].

    References:
        Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted
