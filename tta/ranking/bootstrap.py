"""Which totals other seeds and other images could have given."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tta.ranking.totals import Tally, Totals

CHUNK = 50
"""Resamples that are added up together, which bounds the memory."""


def observed(tally: Tally) -> Totals:
    """Totals of the experiment itself, with one row."""
    blocks = sum(len(task) for task in tally.tasks)
    return tally.totals(np.ones((tally.images, 1), dtype=np.float32), np.ones((1, blocks), dtype=np.int64))


def resampled(tally: Tally, resamples: int, seed: int) -> Iterator[Totals]:
    """Draw the seeds of every task, and the images, with replacement, and add up again.

    Seeds and images are drawn apart from each other, and a draw of images is the same for all systems and all blocks
    (the pigeonhole bootstrap). An image that was hard with one seed is hard with the next: were images drawn anew
    in each block, three seeds on one test set would pass for three test sets, and intervals would be too narrow. Where
    blocks show different images the draws are independent by themselves. The variance is a little too large for what
    seed and image decide together, and too small by a factor of ``(B - 1) / B`` for what the seed decides, where a task
    has ``B`` seeds: nothing with one.

    Args:
        tally: The experiment.
        resamples: How many draws.
        seed: Of the draws.

    Yields:
        Totals of up to :data:`CHUNK` draws at a time.

    References:
        The Pigeonhole Bootstrap, Annals of Applied Statistics 1(2), 2007, https://doi.org/10.1214/07-AOAS122.
    """
    random = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - start)
        yield tally.totals(_images(random, rows, tally.images), _blocks(random, rows, tally.tasks))


def _images(random: np.random.Generator, rows: int, images: int) -> NDArray[np.float32]:
    """How often each image is drawn, ``(images, rows)``."""
    drawn = random.integers(images, size=(rows, images)) + images * np.arange(rows)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images)
    return np.ascontiguousarray(counts.T, dtype=np.float32)


def _blocks(random: np.random.Generator, rows: int, tasks: list[NDArray[np.intp]]) -> NDArray[np.int64]:
    """How often each block is drawn, ``(rows, blocks)``: of each task as many as it has."""
    counts = np.zeros((rows, sum(len(task) for task in tasks)), dtype=np.int64)
    for task in tasks:
        counts[:, task] = random.multinomial(len(task), np.full(len(task), 1 / len(task)), size=rows)
    return counts
