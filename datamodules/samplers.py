"""Which images a loader takes, and when: splits, subsets, shuffles that can be resumed."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from datamodules.array_types import Ints


class EpochSampler(Sampler[tuple[int, int]]):
    """Shuffle by seed and epoch, so that a resumed training sees what an uninterrupted one would have seen."""

    def __init__(self, size: int, seed: int) -> None:
        """Start at epoch 0.

        Args:
            size: Number of images.
            seed: Non-negative.
        """
        self.size = size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of images."""
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass; the trainer calls it, without a call epochs are counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Give ``(index, epoch)`` of every image once; a stateful loader can resume the iterator anywhere."""
        return _EpochIterator(self)


class _EpochIterator(Iterator[tuple[int, int]]):
    # The trainer creates a resumed iterator before it calls set_epoch, so the iterator has to know its epoch itself;
    # at the end of an epoch it saves a loader that has given everything but has not noticed: the next epoch is due.

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler
        self.load_state_dict({"epoch": sampler.epoch, "given": 0})

    def __next__(self) -> tuple[int, int]:
        if self.given == len(self.order):
            raise StopIteration
        self.given += 1
        return self.order[self.given - 1], self.epoch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        ended = state["given"] == len(self.sampler)
        self.epoch, self.given = (state["epoch"] + 1, 0) if ended else (state["epoch"], state["given"])
        self.order: list[int] = (
            np.random.default_rng([self.sampler.seed, self.epoch]).permutation(len(self.sampler)).tolist()
        )
        self.sampler.epoch = self.epoch + 1


def stratified_split(labels: Ints, shares: Sequence[float], seed: int) -> list[Ints]:
    """Split a data set so that every part has the classes in the same proportions.

    Args:
        labels: Class of every image, int64, shape ``(N,)``.
        shares: Share of each part; they add up to 1.
        seed: Non-negative.

    Returns:
        Ascending int64 indices of each part; together every index once.
    """
    rng = np.random.default_rng(seed)
    parts: list[list[Ints]] = [[] for _ in shares]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label)).astype(np.int64)
        cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]


def random_subset(size: int, most: int | None, seed: int) -> Ints:
    """Choose images at random.

    Args:
        size: Number of images to choose from.
        most: How many to keep; all if ``None`` or at least ``size``.
        seed: Non-negative.

    Returns:
        Ascending int64 indices.
    """
    if most is None or most >= size:
        return np.arange(size, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).permutation(size)[:most]).astype(np.int64)
