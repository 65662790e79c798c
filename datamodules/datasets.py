"""Data sets behind the loaders: clean images, augmented images, corrupted images."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.array_types import Ints
from datamodules.corruptions import Domain, corrupt, generator_for
from tta.errors import InputError, first_line

Sample = dict[str, Tensor]
Key = tuple[int, int, int]
"""``(index, condition, domain)`` of a sample of a stream."""
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
        image, label = read_pair(self.data, index)
        if self.augment is not None:
            image = self.augment(image, generator_for(self.seed, f"augment {epoch}", index)).clamp(0, 1)
        return {"image": image, "label": torch.tensor(label), "index": torch.tensor(index)}


class BatchCorruption:
    """Shows a batch's images under their conditions."""

    def __init__(self, domains: Sequence[Domain], seed: int, levels: str) -> None:
        """Keep the conditions.

        Args:
            domains: Corruptions of every condition, by its number.
            seed: Non-negative seed of the corruptions' randomness.
            levels: Parameter set of the corruptions.
        """
        self.domains = list(domains)
        self.seed = seed
        self.levels = levels

    def __call__(self, batch: Sample) -> Sample:
        """Corrupt the images, on the device on which they are.

        Args:
            batch: ``image`` (float32, ``(B, C, H, W)``, in [0, 1]), ``index`` and ``condition`` (int64, ``(B,)``).

        Returns:
            The same with corrupted images.
        """
        images, conditions, index = batch["image"], batch["condition"].cpu(), batch["index"].cpu()
        corrupted = torch.empty_like(images)
        for condition in sorted(set(conditions.tolist())):
            rows = (conditions == condition).nonzero().squeeze(1)
            there = rows.to(images.device)
            domain = self.domains[condition]
            corrupted[there] = corrupt(images[there], domain, self.seed, index[rows].tolist(), self.levels)
        return batch | {"image": corrupted}


class StreamDataset(Dataset[Sample]):
    """Images as a stream shows them, read and corrupted a batch at a time."""

    def __init__(self, data: Sequence[ImageData], corruption: BatchCorruption | None = None) -> None:
        """Wrap images.

        Args:
            data: The images of every condition, by its number.
            corruption: Applied to every batch; none if ``None``.
        """
        self.data = list(data)
        self.corruption = corruption

    def __len__(self) -> int:
        """Return the number of images of all conditions."""
        return sum(len(images) for images in self.data)

    def __getitems__(self, keys: Sequence[Key]) -> Sample:
        """Return a batch.

        Args:
            keys: ``(index, condition, domain)`` of every sample; the index counts in the images of the condition.

        Returns:
            ``image`` (float32, ``(B, C, H, W)``, in [0, 1]), ``label``, ``index``, ``condition`` and ``domain`` (int64,
            ``(B,)``).

        Raises:
            InputError: If an image cannot be read, or images differ in shape.
        """
        pairs = [read_pair(self.data[condition], index) for index, condition, _ in keys]
        index, condition, domain = torch.tensor(keys, dtype=torch.int64).unbind(1)
        batch = {
            "image": stack([image for image, _ in pairs]),
            "label": torch.tensor([label for _, label in pairs]),
            "domain": domain,
            "condition": condition,
            "index": index,
        }
        return batch if self.corruption is None else self.corruption(batch)


def read_pair(data: ImageData, index: int) -> tuple[Tensor, int]:
    """Return an image and its class.

    Args:
        data: The data set.
        index: Which image.

    Raises:
        InputError: If the data set fails, whatever it raises.
    """
    try:
        return data[index]
    except InputError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(
            f"image: {type(data).__name__}[{index}] cannot be read ({said}): mend or leave out that image, then go on "
            "with --ckpt_path last"
        ) from error


def collate(samples: list[Sample]) -> Sample:
    """Stack samples to a batch.

    Args:
        samples: Dictionaries with the same keys.

    Returns:
        The same keys with a leading batch dimension.

    Raises:
        InputError: If the images differ in shape.
    """
    stacked = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0] if key != "image"}
    return {"image": stack([sample["image"] for sample in samples]), **stacked}


def whole(batch: Any) -> Any:  # noqa: ANN401 - torch types what is collated as a list
    """Return a batch that its data set has already put together."""
    return batch


def stack(images: list[Tensor]) -> Tensor:
    """Stack images to a batch.

    Args:
        images: ``B`` images ``(C, H, W)``.

    Returns:
        Shape ``(B, C, H, W)``.

    Raises:
        InputError: If they differ in shape.
    """
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise InputError(f"image_size: images of different shapes {sorted(shapes)} meet in a batch; set an image_size.")
    return torch.stack(images)
