"""Batches of images of several domains: each of one domain, or equal shares of all."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from datamodules.array_types import Ints
from datamodules.samplers import SeededEpochs
from tta.errors import InputError


class DomainBatches(SeededEpochs[list[tuple[int, int]]]):
    """Batches whose domains follow a rule, each image at most once an epoch; a batch is a list of ``(index, epoch)``.

    All batches have the same size. What does not fill one is left out of an epoch, others in each epoch, since domains
    are shuffled anew. Several processes share the batches without overlap, as many for each.
    """

    def __init__(
        self, domain: Ints, names: Sequence[str], batch_size: int, seed: int, rank: int = 0, processes: int = 1
    ) -> None:
        """List the images of every domain.

        Args:
            domain: Number of every image's domain, int64, shape ``(N,)``.
            names: Name of every domain, ``D`` of them.
            batch_size: Images per batch.
            seed: Non-negative.
            rank: Number of this process.
            processes: How many processes share the batches.

        Raises:
            InputError: If a domain has too few images for a single batch.
        """
        super().__init__(seed, rank, processes)
        self.members: list[Ints] = [np.flatnonzero(domain == number) for number in range(len(names))]
        self.share = self.share_of(batch_size)
        for name, members in zip(names, self.members, strict=True):
            if len(members) < self.share:
                raise InputError(
                    f"batch_size: {batch_size} takes {self.share} images of one domain, but {name!r} has "
                    f"{len(members)} to train on; make batches smaller or leave this domain out."
                )

    @abstractmethod
    def share_of(self, batch_size: int) -> int:
        """Number of images of one domain in a batch that has any of it."""

    @abstractmethod
    def all_batches(self, rng: np.random.Generator) -> Ints:
        """Draw the batches of all processes: indices, int64, shape ``(batches, images per batch)``."""

    def whole_order(self, epoch: int) -> Ints:
        """Draw the batches of an epoch."""
        return self.all_batches(np.random.default_rng([self.seed, epoch]))

    def keys(self, entry: Ints, epoch: int) -> list[tuple[int, int]]:
        """Return ``(index, epoch)`` of every image of a batch."""
        return [(index, epoch) for index in entry.tolist()]


class OneDomainBatches(DomainBatches):
    """Every batch is full and of one domain; the domains come in random order, each as often as it fills a batch."""

    def share_of(self, batch_size: int) -> int:
        """All of a batch."""
        return batch_size

    def count(self) -> int:
        """Full batches of all domains."""
        return sum(len(members) // self.share for members in self.members)

    def all_batches(self, rng: np.random.Generator) -> Ints:
        """Cut every domain into batches, and shuffle these."""
        batches = [_cut(rng.permutation(members), len(members) // self.share, self.share) for members in self.members]
        return rng.permutation(np.concatenate(batches))


class EveryDomainBatches(DomainBatches):
    """Every batch has as many images of each domain, domain after domain; the smallest domain ends the epoch."""

    def share_of(self, batch_size: int) -> int:
        """Equal shares, rounded down."""
        return batch_size // len(self.members)

    def count(self) -> int:
        """As many as the smallest domain has shares."""
        return min(len(members) for members in self.members) // self.share

    def all_batches(self, rng: np.random.Generator) -> Ints:
        """Put shares of all domains side by side."""
        return np.concatenate(
            [_cut(rng.permutation(members), self.count(), self.share) for members in self.members], axis=1
        )


def _cut(indices: Ints, count: int, size: int) -> Ints:
    return indices[: count * size].reshape(count, size)
