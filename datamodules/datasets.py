"""Data sets behind the loaders: clean images, augmented images, corrupted images."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.corruptions import Domain, corrupt, generator_for
from datamodules.orders import Ints
from tta.errors import InputError

Sample = dict[str, Tensor]
Augment = Callable[[Tensor, torch.Generator], Tensor]


class ImageData(Protocol):
    """What a data set of clean images offers.

    Attributes:
        labels: Class of every image, int64, shape ``(N,)``; -1 where unknown.
    """

    labels: Ints

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return the image, float32 ``(C, H, W)`` in [0, 1], and its class."""
        ...


class TensorImages:
    """Images that are held in memory."""

    def __init__(self, images: Tensor, labels: Ints) -> None:
        """Keep the images.

        Args:
            images: Shape ``(N, C, H, W)``, float32, in [0, 1].
            labels: Shape ``(N,)``, int64.
        """
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image ``(C, H, W)`` and its class."""
        return self.images[index], int(self.labels[index])


class ImageSubset:
    """Some images of a data set, renumbered from 0."""

    def __init__(self, data: ImageData, indices: Ints) -> None:
        """Choose the images.

        Args:
            data: The whole.
            indices: Which images, int64, shape ``(M,)``.
        """
        self.data = data
        self.indices = indices
        self.labels = data.labels[indices]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image ``(C, H, W)`` and its class."""
        return self.data[int(self.indices[index])]


class CleanDataset(Dataset[Sample]):
    """Source samples, augmented if wanted.

    A key is an index, or a pair ``(index, epoch)`` as ``EpochSampler`` gives it: the augmentation of an image depends
    on the seed, its index and the epoch only, never on the workers.
    """

    def __init__(self, data: ImageData, augment: Augment | None = None, seed: int = 0) -> None:
        """Wrap clean images.

        Args:
            data: Clean images.
            augment: Maps an image ``(C, H, W)`` and a generator to an image of the same shape; none if ``None``.
            seed: Non-negative seed of the augmentation.
        """
        self.data = data
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.data)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Return ``image`` (float32, ``(C, H, W)``, in [0, 1]), ``label`` and ``index`` (int64 scalars)."""
        index, epoch = key if isinstance(key, tuple) else (key, 0)
        image, label = self.data[index]
        if self.augment is not None:
            image = self.augment(image, generator_for(self.seed, f"augment {epoch}", index)).clamp(0, 1)
        return {"image": image, "label": torch.tensor(label), "index": torch.tensor(index)}


class CorruptedDataset(Dataset[Sample]):
    """Images as a target domain shows them."""

    def __init__(self, data: ImageData, domains: Sequence[Domain], seed: int = 0) -> None:
        """Wrap clean images.

        Args:
            data: Clean images.
            domains: The corruptions that a key's second number points to.
            seed: Non-negative seed of the corruptions' randomness.
        """
        self.data = data
        self.domains = list(domains)
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of (image, domain) pairs."""
        return len(self.data) * len(self.domains)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Return a sample.

        Args:
            key: ``(index, domain)``.

        Returns:
            ``image`` (float32, ``(C, H, W)``, in [0, 1]), ``label``, ``domain`` and ``index`` (int64 scalars).
        """
        index, domain = key
        image, label = self.data[index]
        return {
            "image": corrupt(image, self.domains[domain], self.seed, index),
            "label": torch.tensor(label),
            "domain": torch.tensor(domain),
            "index": torch.tensor(index),
        }


def collate(samples: list[Sample]) -> Sample:
    """Stack samples to a batch.

    Args:
        samples: Dictionaries with the same keys.

    Returns:
        The same keys with a leading batch dimension.

    Raises:
        InputError: If the images differ in shape.
    """
    shapes = {tuple(sample["image"].shape) for sample in samples}
    if len(shapes) > 1:
        raise InputError(f"image_size: images of different shapes {sorted(shapes)} meet in a batch; set an image_size.")
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
