"""What an experiment says about its systems, for any weighting of its images and blocks."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tta.ranking.experiment import Block, Experiment
from tta.ranking.pairwise import majority, preferences
from tta.ranking.sample_wins import wins


@dataclass(frozen=True, eq=False)
class Totals:
    """What the methods rank by, under each of ``R`` weightings.

    Args:
        accuracy: Of each system on each task, averaged over its blocks, ``(R, T, S)``, NaN where missing.
        preferences: Criteria (accuracy on a task, a further metric on a task) under which one system is better than
            another, ``(R, S, S)``.
        wins: Samples on which one system is right and another wrong, ``(R, S, S)``, NaN where none is common.
    """

    accuracy: NDArray[np.float64]
    preferences: NDArray[np.float64]
    wins: NDArray[np.float64]


class Tally:
    """Adds up an experiment, image by image once, and then for any weighting of images and blocks.

    Args:
        experiment: What is ranked.

    Attributes:
        images: Number of different images ``M``.
        tasks: For each of the ``T`` tasks, which blocks it has.
    """

    def __init__(self, experiment: Experiment) -> None:
        names = np.array([block.task for block in experiment.blocks])
        self.tasks = [np.flatnonzero(names == task) for task in experiment.tasks]
        every = np.unique(np.concatenate([block.images for block in experiment.blocks]))
        self.images = len(every)
        self._experiment = experiment
        self._blocks = [_BlockTally(block, every) for block in experiment.blocks]

    def totals(self, images: NDArray[np.float32], blocks: NDArray[np.int64]) -> Totals:
        """Add up with weights.

        Args:
            images: How often each image counts, float32, ``(M, R)``.
            blocks: How often each block counts, ``(R, number of blocks)``.
        """
        added = [block.add(images) for block in self._blocks]
        accuracy = self._task_accuracy(np.stack([accuracy for accuracy, _ in added], axis=1), blocks)
        won = np.stack([won for _, won in added], axis=1)
        counts = blocks[:, :, None, None]
        measured = (~np.isnan(won) & (counts > 0)).any(axis=1)
        total = np.where(measured, (np.nan_to_num(won) * counts).sum(axis=1), np.nan)
        return Totals(accuracy, preferences(accuracy) + self._metric_preferences(blocks), total)

    def _task_accuracy(self, accuracy: NDArray[np.float64], blocks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Averages over the blocks of each task, ``(R, T, S)``, from those of each block, ``(R, blocks, S)``.

        Rounded, so that averages that differ by the rounding of their sums alone are equal.
        """
        weight = blocks[:, :, None] * ~np.isnan(accuracy)
        total = np.nan_to_num(accuracy) * weight
        counts = np.stack([weight[:, task].sum(axis=1) for task in self.tasks], axis=1)
        sums = np.stack([total[:, task].sum(axis=1) for task in self.tasks], axis=1)
        return np.where(counts > 0, np.round(sums / np.maximum(counts, 1), 12), np.nan)

    def _metric_preferences(self, blocks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of the further metrics, ``(R, S, S)``: one criterion for each metric of each task.

        The system that is better in more of the seeds is. An average over seeds would depend on the metric's scale.
        """
        systems = len(self._experiment.systems)
        total = np.zeros((len(blocks), systems, systems))
        for name, higher in self._experiment.higher_is_better.items():
            for task in self.tasks:
                values = self._metric(name, task) * (1 if higher else -1)
                total += majority(preferences(values, blocks[:, task]))
        return total

    def _metric(self, name: str, task: Sequence[int] | NDArray[np.intp]) -> NDArray[np.float64]:
        missing = np.full(len(self._experiment.systems), np.nan)
        return np.stack([self._experiment.blocks[index].metrics.get(name, missing) for index in task])


class _BlockTally:
    """Right and known answers, and wins, of one block's images.

    Args:
        block: The block.
        every: All images of the experiment, sorted.
    """

    def __init__(self, block: Block, every: NDArray[np.int64]) -> None:
        order = np.argsort(block.images, kind="stable")
        present, starts = np.unique(block.images[order], return_index=True)
        right, wrong = (block.correct == 1)[:, order], (block.correct == 0)[:, order]
        small = np.min_scalar_type(np.diff(starts, append=len(order)).max(initial=0))  # one byte, mostly
        parts = itertools.chain((right, right | wrong), (own & wrong for own in right))
        self._index = np.searchsorted(every, present)
        self._by_image = [np.add.reduceat(part, starts, axis=1, dtype=small) for part in parts]
        self._systems = len(right)
        self._unmeasured = np.isnan(wins(block.correct))

    def add(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Accuracy ``(R, S)`` and wins ``(R, S, S)`` with images weighted ``(M, R)``, NaN where unmeasured."""
        # whole numbers below 2 ** 24, exact in single precision in whatever order they are added
        drawn = images[self._index]
        total = np.concatenate([part.astype(np.float32) @ drawn for part in self._by_image]).T.astype(np.float64)
        right, known, won = np.split(total, [self._systems, 2 * self._systems], axis=1)
        accuracy = np.where(known > 0, right / np.maximum(known, 1), np.nan)
        won = won.reshape(-1, self._systems, self._systems)
        return accuracy, np.where(self._unmeasured, np.nan, won)
