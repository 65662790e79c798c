"""The base of sources whose images come from several domains."""

from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from torch.utils.data import Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from datamodules.array_types import Ints
from datamodules.base import SourceDataModule
from datamodules.checks import check_at_least, check_distinct, check_name
from datamodules.datasets import Augment, CleanDataset, ImageData, ImageSubset, Sample, collate
from datamodules.domain_batches import EveryDomainBatches, OneDomainBatches
from tta.errors import InputError

Batches = Literal["mixed", "one_domain", "every_domain"]
BATCHES = ("mixed", "one_domain", "every_domain")


class DomainData(ImageData, Protocol):
    """What a data set of images of several domains offers.

    Attributes:
        domain: Number of every image's domain, int64, shape ``(N,)``.
    """

    domain: Ints

    def take(self, kept: Ints) -> "DomainData":
        """Return some of the images, renumbered from 0.

        Args:
            kept: Which images, int64, shape ``(M,)``.
        """
        ...


class DomainSubset(ImageSubset):
    """Some images of a data set, renumbered from 0, each of a domain."""

    def __init__(self, data: ImageData, indices: Ints, domain: Ints) -> None:
        """Choose the images.

        Args:
            data: The whole.
            indices: Which images, int64, shape ``(M,)``.
            domain: Number of the domain of each of these, int64, shape ``(M,)``.
        """
        super().__init__(data, indices)
        self.domain = domain

    def take(self, kept: Ints) -> "DomainSubset":
        """Return some of the images, renumbered from 0.

        Args:
            kept: Which images, int64, shape ``(M,)``.
        """
        return DomainSubset(self.data, self.indices[kept], self.domain[kept])


class DomainDataset(CleanDataset):
    """Source samples that know their domain, augmented if wanted."""

    def __init__(self, data: DomainData, augment: Augment | None = None, seed: int = 0) -> None:
        """Wrap images of several domains.

        Args:
            data: The images.
            augment: Maps an image ``(C, H, W)`` and a generator to an image of the same shape; none if ``None``.
            seed: Non-negative seed of the augmentation.
        """
        super().__init__(data, augment, seed)
        self.domain = data.domain

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Return ``image``, ``label`` and ``index`` as ``CleanDataset`` does, and ``domain`` (int64 scalar)."""
        sample = super().__getitem__(key)
        return sample | {"domain": torch.tensor(int(self.domain[sample["index"]]))}


class _Batches(Dataset[list[Sample]]):
    """Samples by the keys of a whole batch: so the sampler of the loader may be one of batches."""

    def __init__(self, samples: Dataset[Sample]) -> None:
        self.samples = samples

    def __getitem__(self, keys: list[Any]) -> list[Sample]:
        return [self.samples[key] for key in keys]


class DomainSource(SourceDataModule):
    """Images of several domains to train on; every batch tells the domain of its images.

    Training, held-out and test batches carry ``domain`` (int64, ``(B,)``: position in ``domains``) beside ``image``,
    ``label`` and ``index``. Both the images of an epoch and its batches depend on the seed and the epoch alone, not on
    the number of workers, and a resumed training goes on exactly.

    A subclass sets ``class_names`` in ``__init__``, and ``train``, ``heldout`` and ``test`` in ``setup``, each with the
    domain of every image. ``imbalance`` makes all domains together long-tailed: how many images of a class a domain
    keeps is left to chance.
    """

    train: DomainData
    heldout: DomainData
    test: DomainData

    def __init__(
        self,
        domains: list[str],
        batches: Batches = "mixed",
        **options: Any,  # noqa: ANN401 - the base names and types them
    ) -> None:
        """Check and keep what all sources of several domains have in common.

        Args:
            domains: Name of every domain, by its number.
            batches: What a training batch is made of. ``mixed``: images of all domains, shuffled; every image once an
                epoch. ``one_domain``: images of one domain, the domains in random order, each as often as it fills a
                batch; an epoch leaves out what does not fill one. ``every_domain``: as many images of each domain,
                ``batch_size // len(domains)``, domain after domain; the smallest domain ends the epoch. Which images
                an epoch leaves out is drawn anew each time.
            **options: Arguments of ``SourceDataModule`` and ``Loading``.

        Raises:
            InputError: If an argument is out of range, a domain is given twice or none is, or ``every_domain`` has
                more domains than a batch has images.
        """
        super().__init__(**options)
        check_distinct(domains, "domains", "write each domain once")
        self.domains = list(domains)
        self.batches = check_name(batches, BATCHES, "batches")
        if batches == "every_domain":
            remedy = f"every batch has images of all {len(domains)} domains"
            check_at_least(self.batch_size, len(domains), "batch_size", remedy)

    @property
    def training_images(self) -> DomainData:
        """The images to train on: ``train``, or its long-tailed part. Reads the data set if ``setup`` did not."""
        return cast(DomainData, super().training_images)

    def _take(self, kept: Ints) -> DomainData:
        return self.train.take(kept)

    def domain_sizes(self) -> dict[str, int]:
        """Number of training images of each domain, by name; reads the data set if ``setup`` has not run yet."""
        counts = np.bincount(self.training_images.domain, minlength=len(self.domains))
        return dict(zip(self.domains, counts.tolist(), strict=True))

    def train_dataloader(self) -> StatefulDataLoader[Sample]:
        """Load the training images, in the batches that were asked for, anew in each epoch; resumes exactly.

        Raises:
            InputError: If a domain has no image to train on, or too few for a batch.
        """
        empty = [name for name, size in self.domain_sizes().items() if size == 0]
        if empty:
            raise InputError(f"domains: {empty[0]!r} has no image to train on; add images or leave this domain out.")
        if self.batches == "mixed":
            return super().train_dataloader()
        images = self.training_images
        kind = OneDomainBatches if self.batches == "one_domain" else EveryDomainBatches
        batches = kind(images.domain, self.domains, self.batch_size, self.seed, *self._process)
        dataset = _Batches(self._samples(images, self.augment))
        order = self._from_current_epoch(batches)
        return StatefulDataLoader(dataset, batch_size=None, sampler=order, collate_fn=collate, **self._options())

    def _samples(self, data: DomainData, augment: Augment | None = None) -> Dataset[Sample]:  # type: ignore[override]
        return DomainDataset(data, augment, self.seed)
