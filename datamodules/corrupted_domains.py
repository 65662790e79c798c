"""Any source of clean images, shown under several corruptions: as many domains to train on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.array_types import Ints
from datamodules.base import SourceDataModule
from datamodules.checks import check_name
from datamodules.corruptions import LEVELS, check_severity, image_seed, read_domain
from datamodules.datasets import Augment, BatchCorruption, ImageData, Sample, stack
from datamodules.domain_source import Batches, DomainDataset, DomainSource, DomainSubset
from tta.errors import InputError


class CorruptedImages:
    """Clean images under the corruptions of their domains, the same in every epoch.

    Attributes:
        clean: The images before they are corrupted.
        labels: Class of every image, int64, shape ``(N,)``.
        domain: Number of every image's domain, int64, shape ``(N,)``.
    """

    def __init__(self, clean: DomainSubset, corruption: BatchCorruption) -> None:
        """Keep the images.

        Args:
            clean: Images, each with the domain under which it is shown.
            corruption: Corrupts a batch; its conditions are the domains.
        """
        self.clean = clean
        self.corruption = corruption
        self.labels = clean.labels
        self.domain = clean.domain

    @classmethod
    def under_all(cls, data: ImageData, corruption: BatchCorruption) -> "CorruptedImages":
        """Show every image under every domain, domain after domain.

        Args:
            data: Clean images.
            corruption: Corrupts a batch; its conditions are the domains.
        """
        count = len(corruption.domains)
        indices = np.tile(np.arange(len(data), dtype=np.int64), count)
        return cls(DomainSubset(data, indices, np.arange(count, dtype=np.int64).repeat(len(data))), corruption)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.clean)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a corrupted image ``(C, H, W)`` and its class."""
        image, label = self.clean[index]
        return self.corrupt(image.unsqueeze(0), [index])[0], label

    def take(self, kept: Ints) -> "CorruptedImages":
        """Return some of the images, renumbered from 0, corrupted as before.

        Args:
            kept: Which images, int64, shape ``(M,)``.
        """
        return CorruptedImages(self.clean.take(kept), self.corruption)

    def corrupt(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """Corrupt images that have been read, and perhaps augmented, already.

        Args:
            images: Float32, shape ``(B, C, H, W)``, in [0, 1].
            indices: Which these are, ``B`` numbers.

        Returns:
            The same shape and dtype, in [0, 1].
        """
        rows = np.asarray(indices, dtype=np.int64)
        condition, index = (torch.from_numpy(of[rows]) for of in (self.domain, self.clean.indices))
        return self.corruption({"image": images, "condition": condition, "index": index})["image"]


class CorruptedDataset(DomainDataset):
    """Source samples that are augmented first and then corrupted, a batch at a time."""

    def __init__(self, data: CorruptedImages, augment: Augment | None = None, seed: int = 0) -> None:
        """Wrap images under corruptions.

        Args:
            data: The images.
            augment: Maps a clean image ``(C, H, W)`` and a generator to an image of the same shape; none if ``None``.
            seed: Non-negative seed of the augmentation.
        """
        super().__init__(data.clean, augment, seed)
        self.corrupted = data

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Return ``image``, ``label``, ``index`` and ``domain`` of one sample."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[Sample]:
        """Return the samples of a batch."""
        samples = [super(CorruptedDataset, self).__getitem__(key) for key in keys]
        images = stack([sample["image"] for sample in samples])
        images = self.corrupted.corrupt(images, [int(sample["index"]) for sample in samples])
        return [sample | {"image": image} for sample, image in zip(samples, images, strict=True)]


class CorruptedDomains(DomainSource):
    """The images of another source under several corruptions, each of which makes a domain.

    Every training, held-out and test image of the source is shown under every domain: an epoch is as many times
    longer. How an image is corrupted depends on the seed, its number in the source and the domain, and stays the same
    from epoch to epoch; the augmentation of the source comes before the corruption, and is another one in each epoch
    and domain. Training, held-out and test images draw differently, and differently from a stream of the same seed.

    The source decides images, split, augmentation and ``imbalance`` (each domain then has the same long tail); how
    batches are loaded, and the ``seed``, are this module's own.
    """

    def __init__(
        self,
        source: SourceDataModule,
        domains: list[str],
        severity: float = 5,
        levels: str = "auto",
        batches: Batches = "mixed",
        **options: Any,  # noqa: ANN401 - the bases name and type them
    ) -> None:
        """Check the arguments; images are read in ``setup``.

        Args:
            source: Clean images, such as ``Digits``, ``CIFARSource`` or ``ImageFolderSource``.
            domains: Domains as streams write them: ``NAME``, ``NAME:SEVERITY`` (0 to 5, fractions allowed), several in
                turn joined by ``+``, or ``clean``.
            severity: Severity of the corruptions that give none.
            levels: Parameter set of the corruptions: ``32``, ``64`` or ``224`` for the published ones of that image
                size, ``auto`` for the nearest of them, or ``digits``.
            batches: What a training batch is made of: ``mixed``, ``one_domain`` or ``every_domain``.
            **options: Arguments of ``SourceDataModule`` and ``Loading``.

        Raises:
            InputError: If an argument is out of range, a domain is unknown or given twice, or the source has domains
                of its own.
        """
        if not isinstance(source, SourceDataModule) or isinstance(source, DomainSource):
            raise InputError(
                f"source: {type(source).__name__} is no source of clean images without domains; give one such as "
                "Digits, CIFARSource or ImageFolderSource."
            )
        check_severity(severity)
        self.levels = check_name(levels, ("auto", *LEVELS), "levels")
        self.severity = severity
        self._corruptions = [read_domain(text, severity, levels) for text in domains]
        super().__init__(domains=[str(domain) for domain in self._corruptions], batches=batches, **options)
        self.source = source
        self.class_names = source.class_names
        self.augment = source.augment

    def prepare_data(self) -> None:
        """Let the source fetch its files; a trainer calls it in one process only."""
        self.source.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Read the images of the source, once.

        Args:
            stage: Passed on to the source, ``fit`` if ``None``.
        """
        if hasattr(self, "train"):
            return
        self.source.setup(stage or "fit")
        self.augment = self.source.augment
        parts = (self.source.training_images, self.source.heldout, self.source.test)
        self.train, self.heldout, self.test = (self._corrupted(part, name) for name, part in enumerate(parts))

    def _corrupted(self, images: ImageData, part: int) -> CorruptedImages:
        seed = image_seed(self.seed, "source domains", part)
        return CorruptedImages.under_all(images, BatchCorruption(self._corruptions, seed, self.levels))

    def _samples(self, data: CorruptedImages, augment: Augment | None = None) -> Dataset[Sample]:  # type: ignore[override]
        return CorruptedDataset(data, augment, self.seed)
