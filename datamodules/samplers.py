"""Which images a loader takes, and when: splits, subsets, shuffles that can be resumed."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from torch.utils.data import DistributedSampler

from datamodules.array_types import Ints
from tta.errors import InputError

Keys = TypeVar("Keys")


class SeededEpochs(DistributedSampler[Keys]):
    """Order by seed and epoch, so that a resumed training sees what an uninterrupted one would have seen.

    Several processes take the entries of an epoch in turns: together they see what one would have seen, each as many
    entries, none twice. What is left once all have had the same number is left out of that epoch.

    A subclass says what comes in an epoch (``whole_order``, ``count``) and what a loader is told of it (``keys``).
    """

    def __init__(self, seed: int, rank: int = 0, processes: int = 1) -> None:
        """Start at epoch 0.

        Args:
            seed: Non-negative.
            rank: Number of this process.
            processes: How many processes share the entries.
        """
        # A DistributedSampler, so that a trainer leaves sharing to it; but what that class does is not what is wanted.
        self.seed = seed
        self.rank = rank
        self.num_replicas = processes
        self.epoch = 0

    @abstractmethod
    def count(self) -> int:
        """Return the number of entries of an epoch, those of all processes; the same in every epoch."""

    @abstractmethod
    def whole_order(self, epoch: int) -> Sequence[Any] | Ints:
        """Decide the entries of an epoch, by the seed and the epoch alone."""

    def __len__(self) -> int:
        """Return the number of entries of an epoch that this process gets."""
        return self.count() // self.num_replicas

    def order(self, epoch: int) -> Sequence[Any] | Ints:
        """Take this process' entries of an epoch."""
        return self.whole_order(epoch)[self.rank :: self.num_replicas][: len(self)]

    @abstractmethod
    def keys(self, entry: Any, epoch: int) -> Keys:  # noqa: ANN401 - whatever ``order`` holds
        """Return what the loader gets of an entry."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass; the trainer calls it, without a call epochs are counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Keys]:
        """Go through an epoch; a stateful loader can resume the iterator anywhere."""
        return _EpochIterator(self)


class EpochSampler(SeededEpochs[tuple[int, int]]):
    """Gives ``(index, epoch)`` of every image once an epoch, shuffled."""

    def __init__(self, size: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        """Start at epoch 0.

        Args:
            size: Number of images, at least one for each process.
            seed: Non-negative.
            rank: Number of this process.
            processes: How many processes share the images.
        """
        super().__init__(seed, rank, processes)
        self.size = size

    def count(self) -> int:
        """Return the number of images."""
        return self.size

    def whole_order(self, epoch: int) -> list[int]:
        """Shuffle the images."""
        order: list[int] = np.random.default_rng([self.seed, epoch]).permutation(self.size).tolist()
        return order

    def keys(self, entry: int, epoch: int) -> tuple[int, int]:
        """Return ``(index, epoch)``: an augmentation may depend on both."""
        return entry, epoch


class _EpochIterator(Iterator[Keys]):
    # The trainer creates a resumed iterator before it calls set_epoch, so the iterator has to know its epoch itself;
    # at the end of an epoch it saves a loader that has given everything but has not noticed: the next epoch is due.

    def __init__(self, sampler: SeededEpochs[Keys]) -> None:
        self.sampler = sampler
        self.load_state_dict({"epoch": sampler.epoch, "given": 0, "processes": sampler.num_replicas})

    def __next__(self) -> Keys:
        if self.given == len(self.order):
            raise StopIteration
        self.given += 1
        self.sampler.epoch = self.epoch + 1  # not before: loaders with workers create an iterator that they never use
        return self.sampler.keys(self.order[self.given - 1], self.epoch)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "given": self.given, "processes": self.sampler.num_replicas}

    def load_state_dict(self, state: dict[str, int]) -> None:
        ended = state["given"] == self.sampler.count() // state["processes"]
        if not ended and state["processes"] != self.sampler.num_replicas:
            raise InputError(
                f"the checkpoint is from within an epoch that {state['processes']} processes share, and "
                f"{self.sampler.num_replicas} are to go on: use the same --trainer.devices"
            )
        self.epoch, self.given = (state["epoch"] + 1, 0) if ended else (state["epoch"], state["given"])
        self.order = self.sampler.order(self.epoch)


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
