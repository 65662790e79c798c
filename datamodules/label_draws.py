"""Draw images of given classes: without replacement, pass after pass, or as SAR's published index files did."""

import random

import numpy as np

from datamodules.array_types import Floats, Ints
from datamodules.priors import members


def without_replacement(labels: Ints, counts: Ints, rng: np.random.Generator) -> Ints:
    """Draw a number of images of each class, in random order.

    Args:
        labels: Class of every image, int64, shape ``(N,)``.
        counts: Images to draw of each class, int64, shape ``(K,)``; at most as many as there are.
        rng: Source of randomness.

    Returns:
        Distinct int64 positions in ``labels``.
    """
    classes = zip(members(labels, len(counts)), counts, strict=True)
    return rng.permutation(np.concatenate([rng.permutation(positions)[:count] for positions, count in classes]))


def in_passes(labels: Ints, classes: Ints, num_classes: int, rng: np.random.Generator) -> Ints:
    """Draw an image of each of the classes; one comes again only after all of its class were drawn.

    Args:
        labels: Class of every image, int64, shape ``(N,)``.
        classes: Classes to draw from, one after the other, int64, shape ``(M,)``; each has an image.
        num_classes: Number of classes, ``K``.
        rng: Source of randomness; every pass over a class has an order of its own.

    Returns:
        Int64 positions in ``labels``, shape ``(M,)``, of the classes that were asked for.
    """
    counts = np.bincount(classes, minlength=num_classes)
    drawn = []
    for positions, count in zip(members(labels, num_classes), counts, strict=True):
        for left in range(count, 0, -max(1, len(positions))):
            drawn.append(rng.permutation(positions)[:left])
    shown = np.empty(len(classes), dtype=np.int64)
    shown[np.argsort(classes, kind="stable")] = np.concatenate(drawn)
    return shown


PUBLISHED_RATIOS = (1, 1000, 2000, 3000, 4000, 5000, 500000)
"""Imbalance ratios of SAR's index files, in the order in which the script that made them shuffled the classes."""

DRAW_SEED = 2022
"""Seed of the draws in all of SAR's index files, whatever the seed of their class order."""


def sar_stream(labels: Ints, num_classes: int, ratio: float, seed: int, blocks_per_class: int, block: int) -> Ints:
    """Draw SAR's label-shift stream, equal to the published index files.

    The legacy generator's ``choice(K, 1, p=q)`` takes one uniform number and looks it up in the cumulated ``q``; here a
    block is looked up at once.

    Args:
        labels: Class of every image, int64, shape ``(N,)``; each class has an image.
        num_classes: Number of classes, ``K``.
        ratio: Probability of a block's class over that of each other one.
        seed: Seed of the class order.
        blocks_per_class: Times the classes are gone through.
        block: Samples of a block.

    Returns:
        Int64 positions in ``labels``, shape ``(K * blocks_per_class * block,)``, drawn with replacement.
    """
    rng = np.random.RandomState(DRAW_SEED)
    order = _class_order(num_classes, ratio, seed) * blocks_per_class
    uniform = rng.random_sample((len(order), block))
    drawn = [_look_up(row, num_classes, ratio, label) for row, label in zip(uniform, order, strict=True)]
    classes = np.concatenate(drawn)
    counts = np.bincount(classes, minlength=num_classes)
    images = [
        positions[rng.randint(0, len(positions), count)]
        for positions, count in zip(members(labels, num_classes), counts, strict=True)
        if count
    ]
    shown = np.empty(len(classes), dtype=np.int64)
    shown[np.argsort(classes, kind="stable")] = np.concatenate(images)
    return shown


def _class_order(num_classes: int, ratio: float, seed: int) -> list[int]:
    rng = random.Random(seed)  # noqa: S311
    shuffles = PUBLISHED_RATIOS.index(ratio) + 1 if ratio in PUBLISHED_RATIOS else 1
    for _ in range(shuffles):
        order = list(range(num_classes))
        rng.shuffle(order)
    return order


def _look_up(uniform: Floats, num_classes: int, ratio: float, label: int) -> Ints:
    minor = 1 / (ratio + num_classes - 1)
    prior = np.full(num_classes, minor)
    prior[label] = minor * ratio
    cumulated = prior.cumsum()
    return np.searchsorted(cumulated / cumulated[-1], uniform, side="right").astype(np.int64)
