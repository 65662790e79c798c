"""How often each class is shown: class priors, the counts that follow from them, and long-tailed subsets."""

from collections.abc import Sequence

import numpy as np

from datamodules.array_types import Floats, Ints
from datamodules.checks import check_name
from tta.errors import InputError

DIRECTIONS = ("backward", "forward")
"""``forward``: the first class is the most frequent one, as in long-tailed training sets; ``backward``: the last."""


def check_ratio(ratio: float, argument: str = "ratio") -> None:
    """Reject an imbalance ratio below one.

    Args:
        ratio: Frequency of the most frequent class over that of the rarest.
        argument: The place, for the message.

    Raises:
        InputError: If it is below 1 or not finite.
    """
    if not 1 <= ratio < float("inf"):
        raise InputError(
            f"{argument}: {ratio} is not a finite number of at least 1; 1 is balanced, 50 has a long tail."
        )


def check_prior(prior: Sequence[float] | Floats, num_classes: int, argument: str = "prior") -> Floats:
    """Return ``prior`` as an array if it is a distribution over the classes.

    Args:
        prior: Probability of each class.
        num_classes: Number of classes, ``K``.
        argument: The place, for the message.

    Returns:
        Float64, shape ``(K,)``, scaled so that it sums to 1 to the last digit.

    Raises:
        InputError: If the length is wrong, a number is negative or not finite, or the sum is off 1 by more than 1e-6.
    """
    values = np.asarray(prior, dtype=np.float64)
    if values.shape != (num_classes,):
        raise InputError(
            f"{argument}: {values.size} numbers do not fit {num_classes} classes; give one for each class."
        )
    if not (values >= 0).all():
        raise InputError(f"{argument}: {values.min()} is no probability; give numbers that are not negative.")
    total = float(values.sum())
    if not abs(total - 1) <= 1e-6:
        raise InputError(f"{argument}: the numbers sum to {total:.7g}, not to 1; divide each by their sum.")
    scaled: Floats = values / total
    return scaled


def class_sizes(labels: Ints, num_classes: int, needed: Floats | None = None) -> Ints:
    """Count the images of each class.

    Args:
        labels: Class of every image, int64, shape ``(N,)``, in ``[0, K)``.
        num_classes: Number of classes, ``K``.
        needed: Prior of each class, shape ``(K,)``: where it is positive there has to be an image; all if ``None``.

    Returns:
        Int64, shape ``(K,)``.

    Raises:
        InputError: If a class that is needed has no image.
    """
    sizes = np.bincount(labels, minlength=num_classes).astype(np.int64)
    missing = np.flatnonzero((sizes == 0) & (True if needed is None else needed > 0))
    if len(missing):
        raise InputError(
            f"labels: class {missing[0]} has no image (one of {len(missing)} such classes), but its prior is positive; "
            "keep more samples per domain, or choose a schedule without priors."
        )
    return sizes


def members(labels: Ints, num_classes: int) -> list[Ints]:
    """List the images of each class.

    Args:
        labels: Class of every image, int64, shape ``(N,)``, in ``[0, K)``.
        num_classes: Number of classes, ``K``.

    Returns:
        ``K`` int64 arrays of ascending positions in ``labels``.
    """
    by_class = np.argsort(labels, kind="stable").astype(np.int64)
    return np.split(by_class, np.cumsum(np.bincount(labels, minlength=num_classes))[:-1])


def long_tailed_counts(num_classes: int, most: int, ratio: float, kind: str = "exponential") -> Ints:
    """Number of images of each class under class imbalance, the most frequent class first.

    Args:
        num_classes: Number of classes, ``K``.
        most: Images of the most frequent class.
        ratio: Images of the most frequent class over those of the rarest, at least 1.
        kind: ``exponential``: ``int(most * (1 / ratio) ** (k / (K - 1)))`` of class ``k``; ``step``: ``most`` of each
            class of the first half, ``int(most / ratio)`` of each class of the second.

    Returns:
        Int64, shape ``(K,)``; the tail is 0 where ``ratio > most``.

    Raises:
        InputError: If the ratio is below 1 or the kind unknown.

    References:
        LDAM (https://arxiv.org/abs/1906.07413) made both imbalances of CIFAR; SADE (https://arxiv.org/abs/2107.09249)
        trains on the exponential one and tests on it in both directions.
    """
    check_ratio(ratio)
    if check_name(kind, ("exponential", "step"), "imbalance") == "step":
        half = num_classes // 2
        return np.repeat(np.array([most, int(most / ratio)], dtype=np.int64), [half, num_classes - half])
    steps = max(1, num_classes - 1)
    return np.array([int(most * (1 / ratio) ** (k / steps)) for k in range(num_classes)], dtype=np.int64)


def long_tailed_subset(labels: Ints, num_classes: int, ratio: float, kind: str = "exponential", seed: int = 0) -> Ints:
    """Choose a class-imbalanced subset, the same images as the published code of SADE and LDAM.

    Args:
        labels: Class of every image, int64, shape ``(N,)``, in ``[0, K)``.
        num_classes: Number of classes, ``K``.
        ratio: Images of the most frequent class over those of the rarest, at least 1. The most frequent one keeps as
            many images as the smallest class of ``labels`` has: all of them if the data are balanced.
        kind: ``exponential`` or ``step``, see ``long_tailed_counts``.
        seed: Seed of NumPy's legacy generator; the published splits have 0.

    Returns:
        Int64 positions in ``labels``, class after class. A class may be left without images, if the ratio is larger
        than the class sizes.

    Raises:
        InputError: If a class has no image, the ratio is below 1 or the kind unknown.
    """
    counts = long_tailed_counts(num_classes, int(class_sizes(labels, num_classes).min()), ratio, kind)
    rng = np.random.RandomState(seed)
    chosen = members(labels, num_classes)
    for positions in chosen:
        rng.shuffle(positions)
    return np.concatenate([positions[:count] for positions, count in zip(chosen, counts, strict=True)])


def long_tailed_prior(num_classes: int, ratio: float, direction: str) -> Floats:
    """Exponentially long-tailed class prior.

    Args:
        num_classes: Number of classes, ``K``.
        ratio: Probability of the most frequent class over that of the rarest, at least 1.
        direction: One of ``DIRECTIONS``.

    Returns:
        Float64, shape ``(K,)``; sums to 1.

    Raises:
        InputError: If the ratio is below 1 or the direction unknown.
    """
    check_ratio(ratio)
    weights = (1 / ratio) ** (np.arange(num_classes, dtype=np.float64) / max(1, num_classes - 1))
    if check_name(direction, DIRECTIONS, "direction") == "backward":
        weights = weights[::-1]
    prior: Floats = weights / weights.sum()
    return prior


def prior_counts(prior: Floats, total: int) -> Ints:
    """Share samples among the classes by the method of the largest remainder.

    Args:
        prior: Probability of each class, float64, shape ``(K,)``; sums to 1.
        total: Number of samples to share.

    Returns:
        Int64, shape ``(K,)``; sums to ``total``, and each is less than one off ``prior * total``. Of equal remainders
        those of the lower classes count as larger.
    """
    exact = prior * total
    counts = np.floor(exact).astype(np.int64)
    largest = np.argsort(np.round(counts - exact, 9), kind="stable")  # equal remainders stay equal: lower classes first
    counts[largest[: total - int(counts.sum())]] += 1
    return counts


def most_with_prior(prior: Floats, sizes: Ints) -> Ints:
    """Share as many images as there are, without replacement, among the classes.

    Args:
        prior: Probability of each class, float64, shape ``(K,)``; sums to 1.
        sizes: Images that each class has, int64, shape ``(K,)``; positive where the prior is.

    Returns:
        ``prior_counts`` of the largest total for which no class needs more images than it has.
    """
    # With T samples a class gets at least floor(prior * T), which bounds T; below the bound not every T is feasible.
    likely = prior > 0
    bound = min(int(((sizes[likely] + 1) / prior[likely]).min()) + 1, int(sizes[likely].sum()))
    every = (prior_counts(prior, total) for total in range(bound, -1, -1))
    return next(counts for counts in every if (counts <= sizes).all())


def read_prior(prior: Sequence[float] | str, num_classes: int, argument: str) -> Floats:
    """Read a prior that is given as numbers or as a text.

    Args:
        prior: Probability of each class, ``"uniform"``, or ``"DIRECTION:RATIO"`` such as ``"forward:50"``.
        num_classes: Number of classes, ``K``.
        argument: The place, for messages.

    Returns:
        Float64, shape ``(K,)``; sums to 1.

    Raises:
        InputError: If it is no distribution over the classes, or a text of another form.
    """
    if not isinstance(prior, str):
        return check_prior(prior, num_classes, argument)
    if prior == "uniform":
        return np.full(num_classes, 1 / num_classes)
    direction, _, ratio = prior.partition(":")
    try:
        return long_tailed_prior(num_classes, float(ratio), direction)
    except ValueError:
        raise InputError(
            f"{argument}: {prior!r} is no prior; write uniform, forward:RATIO or backward:RATIO with a ratio of at "
            "least 1, or give a list with the probability of each class."
        ) from None
