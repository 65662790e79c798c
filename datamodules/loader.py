"""The loader of a stream: sized, and exact about where it stands."""

from collections.abc import Iterator
from typing import Protocol, cast

from torch.utils.data import DataLoader, Sampler

from datamodules.datasets import Key, Sample


class PlannedBatches(Protocol):
    """Batches that are known before they are loaded."""

    def __len__(self) -> int:
        """Return the number of batches."""
        ...

    def batch(self, number: int) -> list[Key]:
        """Return the key of every sample of a batch."""
        ...


class BatchKeys(Sampler[list[Key]]):
    """Gives the keys of planned batches, one batch at a time, from ``start`` on."""

    def __init__(self, batches: PlannedBatches) -> None:
        """Start at the first batch.

        Args:
            batches: The batches.
        """
        self.batches = batches
        self.start = 0

    def __len__(self) -> int:
        """Return the number of batches, from the first on."""
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        """Go through the batches in order."""
        return (self.batches.batch(number) for number in range(self.start, len(self.batches)))


class StreamLoader(DataLoader[Sample]):
    """A loader over ``BatchKeys`` that resumes at any batch, with any number of workers.

    Its state is the number of batches that were given out. What workers had read ahead is no part of it, so that a
    stream may go on with more or fewer workers than it had before; torchdata's ``StatefulDataLoader`` refuses that.
    """

    _given: int = 0

    def __iter__(self) -> Iterator[Sample]:  # type: ignore[override]  # a generator, as torchdata's loader gives
        """Go on from where the loader stands; a complete pass starts over."""
        keys = cast(BatchKeys, self.batch_sampler)
        keys.start = self._given = self._given % max(len(self), 1)
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches given out."""
        return {"given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after as many batches.

        Args:
            state: From ``state_dict``, of a loader over the same batches.
        """
        self._given = state["given"]
