"""The two bases: a datamodule to train a source model, and one that is a stream to adapt to."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from datamodules.checks import check_at_least, check_name
from datamodules.corruptions import CORRUPTIONS, Domain, check_severity
from datamodules.datasets import (
    Augment,
    CleanDataset,
    CorruptedDataset,
    ImageData,
    Sample,
    collate,
)
from datamodules.orders import GAMMA_RANGE, ORDERS, Batch, batches, make_order, shard
from datamodules.samplers import BatchList, EpochSampler, random_subset
from tta.errors import InputError


def _check_loading(batch_size: int, seed: int, num_workers: int) -> None:
    check_at_least(batch_size, 1, "batch_size", "give the number of images per batch")
    check_at_least(seed, 0, "seed", "use a non-negative number")
    check_at_least(num_workers, 0, "num_workers", "0 loads in the main process")


class _Loading(LightningDataModule):
    """Loader plumbing that both bases share."""

    batch_size: int
    num_workers: int
    seed: int
    class_names: list[str]

    @property
    def num_classes(self) -> int:
        """Number of classes, known from construction on."""
        return len(self.class_names)

    def _options(self) -> dict[str, Any]:
        # With a generator of its own a loader leaves the global random state alone.
        generator = torch.Generator().manual_seed(self.seed)
        return {"num_workers": self.num_workers, "collate_fn": collate, "generator": generator}

    def _clean_loader(self, data: ImageData, indices: Sequence[int] | None = None) -> DataLoader[Sample]:
        keys = range(len(data)) if indices is None else indices
        return DataLoader(CleanDataset(data), self.batch_size, sampler=keys, **self._options())


class SourceDataModule(_Loading):
    """Clean images to train a source model on.

    A subclass sets ``class_names`` in ``__init__``, and ``train``, ``heldout``, ``test`` and, if it augments,
    ``augment`` in ``setup``. Batches are dictionaries of ``image`` (float32, ``(B, C, H, W)``, in [0, 1]), ``label``
    and ``index`` (int64, ``(B,)``; the index counts inside ``train``, ``heldout`` or ``test``). Nothing is normalised:
    that is the model's part.
    """

    train: ImageData
    heldout: ImageData
    test: ImageData
    augment: Augment | None = None

    def __init__(self, batch_size: int = 64, seed: int = 0, num_workers: int = 0) -> None:
        """Check and keep what every source has in common.

        Args:
            batch_size: Images per batch, at least 1.
            seed: Non-negative seed of shuffle and augmentation.
            num_workers: Loader processes; 0 loads in the main process.

        Raises:
            InputError: If a number is too small.
        """
        super().__init__()
        _check_loading(batch_size, seed, num_workers)
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers

    @property
    def class_counts(self) -> list[int]:
        """Number of training images of each class; reads the data set if ``setup`` has not run yet."""
        if not hasattr(self, "train"):
            self.setup("fit")
        counts: list[int] = np.bincount(self.train.labels, minlength=self.num_classes).tolist()
        return counts

    def train_dataloader(self) -> StatefulDataLoader[Sample]:
        """Load the training images, shuffled anew in each epoch by the seed alone; resumes exactly."""
        dataset = CleanDataset(self.train, self.augment, self.seed)
        sampler = EpochSampler(len(self.train), self.seed)
        if self.trainer is not None:
            # What the trainer itself passes to set_epoch, but only after a resumed loader has started its workers.
            progress = self.trainer.fit_loop.epoch_progress.state_dict()
            sampler.set_epoch(progress["current"]["processed"])
        return StatefulDataLoader(dataset, self.batch_size, sampler=sampler, **self._options())

    def val_dataloader(self) -> DataLoader[Sample]:
        """Load the held-out source images, in order."""
        return self._clean_loader(self.heldout)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Load the test images, clean and in order."""
        return self._clean_loader(self.test)


class StreamDataModule(_Loading):
    """A stream of target images to adapt to, online and in one pass.

    ``train_dataloader`` *is* the stream: a sized loader that resumes exactly from its ``state_dict``, cut into one part
    per process when a trainer is attached. A subclass sets ``class_names`` in ``__init__`` and, in ``setup``,
    ``stream`` and, if there are any, ``source`` and ``heldout``: clean target, source-training and held-out source
    images. Batches are dictionaries of ``image`` (float32, ``(B, C, H, W)``, in [0, 1]), ``label``, ``domain``
    (position in ``domains``) and ``index`` (position in ``stream``), each int64 of shape ``(B,)``.

    With every order but ``mixed`` a batch has one domain; the last batch of a domain may be smaller. For a reset at
    known domain boundaries use ``order="continual"`` and let the host reset; for single images set ``batch_size=1``.
    """

    default_domains: ClassVar[tuple[str, ...]] = tuple(name for name in CORRUPTIONS if name != "clean")

    stream: ImageData
    source: ImageData | None = None
    heldout: ImageData | None = None

    def __init__(
        self,
        domains: list[str] | None = None,
        severity: float = 5,
        order: str = "continual",
        gamma: float = 0.1,
        batch_size: int = 64,
        samples_per_domain: int | None = None,
        source_samples: int = 512,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        """Check and keep what every stream has in common.

        Args:
            domains: Corruptions as ``NAME`` or ``NAME:SEVERITY``, shown in this order; ``None`` takes the class's
                ``default_domains``.
            severity: Severity of the domains that give none, in [1, 5].
            order: A key of ``ORDERS``.
            gamma: Dirichlet concentration of the ``correlated`` order; smaller is more correlated.
            batch_size: Images per batch, at least 1.
            samples_per_domain: Keep this many random images, the same in every domain; all if ``None``.
            source_samples: Most images that ``source_dataloader`` gives, at least 1.
            seed: Non-negative seed of order, corruptions and subsets.
            num_workers: Loader processes; 0 loads in the main process.

        Raises:
            InputError: If an argument is out of range, a corruption or an order is unknown, or a domain comes twice.
        """
        super().__init__()
        _check_loading(batch_size, seed, num_workers)
        check_severity(severity)
        if not GAMMA_RANGE[0] <= gamma <= GAMMA_RANGE[1]:
            raise InputError(f"gamma: {gamma} is outside [{GAMMA_RANGE[0]:g}, {GAMMA_RANGE[1]:g}]; 0.1 is usual.")
        if samples_per_domain is not None:
            check_at_least(samples_per_domain, 1, "samples_per_domain", "leave it out to keep all images")
        self.order = check_name(order, ORDERS, "order")
        self.gamma = gamma
        self.batch_size = batch_size
        self.samples_per_domain = samples_per_domain
        self.source_samples = check_at_least(source_samples, 1, "source_samples", "512 is usual")
        self.seed = seed
        self.num_workers = num_workers
        self._domains = _parse_domains(self.default_domains if domains is None else domains, severity)

    @property
    def domains(self) -> list[str]:
        """Name of every domain, such as ``gaussian_noise:5``, in the order of the ``domain`` numbers."""
        return [str(domain) for domain in self._domains]

    def batches(self) -> list[Batch]:
        """Compute ``(index, domain)`` of every sample of every batch of the whole stream, before sharding.

        Raises:
            InputError: If there is no image.
        """
        kept = random_subset(len(self.stream), self.samples_per_domain, self.seed)
        if len(kept) == 0:
            raise InputError("stream: there is no image in it; check the data set and its split.")
        order = make_order(self.order, self.stream.labels[kept], len(self._domains), self.seed, self.gamma)
        cut = batches(order, self.batch_size, by_domain=self.order != "mixed")
        return [[(int(kept[index]), domain) for index, domain in batch] for batch in cut]

    def train_dataloader(self) -> StatefulDataLoader[Sample]:
        """Load the stream, for adaptation: this process's part of it if a trainer is attached."""
        cut = self.batches()
        if self.trainer is not None:
            cut = shard(cut, self.trainer.global_rank, self.trainer.world_size)
        dataset = CorruptedDataset(self.stream, self._domains, self.seed)
        return StatefulDataLoader(dataset, batch_sampler=BatchList(cut), **self._options())

    def test_dataloader(self) -> StatefulDataLoader[Sample]:
        """Load the same stream, to evaluate a frozen model."""
        return self.train_dataloader()

    def predict_dataloader(self) -> StatefulDataLoader[Sample]:
        """Load the same stream, to predict with a frozen model."""
        return self.train_dataloader()

    def val_dataloader(self) -> DataLoader[Sample] | list[DataLoader[Sample]]:
        """Load clean held-out source images, to measure forgetting; an empty list if there are none."""
        return [] if self.heldout is None else self._clean_loader(self.heldout)

    def source_dataloader(self) -> DataLoader[Sample]:
        """Load clean source-training images for methods that need them, at most ``source_samples``, chosen by the seed.

        Raises:
            InputError: If the stream was given no source images.
        """
        if self.source is None:
            raise InputError("source_root: none was given, but source images are asked for; set it to the source data.")
        chosen = random_subset(len(self.source), self.source_samples, self.seed).tolist()
        return self._clean_loader(self.source, chosen)


def _parse_domains(texts: Sequence[str], severity: float) -> list[Domain]:
    parsed = [Domain.parse(text, severity) for text in texts]
    names = [str(domain) for domain in parsed]
    if not names:
        raise InputError("domains: the list is empty; name at least one corruption, or leave it out for the default.")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"domains: {name!r} is given twice; write each domain once, or give a different severity.")
    return parsed
