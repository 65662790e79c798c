"""Randomness of a batch that is drawn image by image, so that no image depends on its neighbours."""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def image_seed(seed: int, name: str, index: int) -> int:
    """Derive the seed of all that is random about one image.

    Args:
        seed: Non-negative seed of the stream.
        name: What is drawn, such as the name of a corruption.
        index: Position of the image in its data set.

    Returns:
        A number below 2^64; equal arguments give equal numbers in every process and on every machine.
    """
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode()), index]).generate_state(1, np.uint64)[0])


def generator_for(seed: int, name: str, index: int) -> torch.Generator:
    """Make the generator that decides all the randomness of one image.

    Args:
        seed: Non-negative seed of the stream.
        name: What is drawn, such as the name of an augmentation.
        index: Position of the image in its data set.

    Returns:
        A fresh CPU generator, seeded with ``image_seed``.
    """
    return torch.Generator().manual_seed(image_seed(seed, name, index))


class Draws:
    """Random numbers for a batch: each image draws from a generator of its own, on the device of the images.

    Neither the composition of a batch nor its order changes what an image draws. A GPU's generators give other numbers
    than a CPU's, as everywhere in torch.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        """Seed the generators.

        Args:
            seeds: Seed of each image, below 2^64.
            device: Where to draw.
        """
        self.device = torch.device(device)
        self._generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._generators)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw evenly from ``[low, high)``; float32, ``(B, *shape)``."""
        return self._each(shape, lambda row, generator: row.uniform_(low, high, generator=generator))

    def normal(self, *shape: int, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """Draw from a normal distribution; float32, ``(B, *shape)``."""
        return self._each(shape, lambda row, generator: row.normal_(mean, std, generator=generator))

    def integers(self, *shape: int, low: int, high: int) -> Tensor:
        """Draw whole numbers of ``[low, high)``; int64, ``(B, *shape)``."""
        return self._each(shape, lambda row, generator: row.random_(low, high, generator=generator), torch.int64)

    def poisson(self, rates: Tensor) -> Tensor:
        """Draw counts with the given means ``(B, ...)``; same shape and dtype."""
        rows = [torch.poisson(row, generator=own) for row, own in zip(rates, self._generators, strict=True)]
        return torch.stack(rows)

    def _each(
        self,
        shape: Sequence[int],
        fill: Callable[[Tensor, torch.Generator], Tensor],
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        drawn = torch.empty(len(self), *shape, dtype=dtype, device=self.device)
        for row, generator in zip(drawn.view(len(self), -1), self._generators, strict=True):
            fill(row, generator)
        return drawn
