"""What all datamodules share, and the base of those that train a source model."""

from collections.abc import Iterable
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from datamodules.array_types import Ints
from datamodules.checks import check_at_least
from datamodules.datasets import Augment, CleanDataset, ImageData, ImageSubset, Sample, collate
from datamodules.priors import check_ratio, long_tailed_subset
from datamodules.samplers import EpochSampler, SeededEpochs
from tta.errors import InputError

Order = TypeVar("Order", bound=SeededEpochs[Any])


class Loading(LightningDataModule):
    """Loader plumbing that sources and streams share. A subclass sets ``class_names`` in ``__init__``."""

    class_names: list[str]

    def __init__(
        self,
        batch_size: int = 64,
        seed: int = 0,
        num_workers: int = 0,
        prefetch_factor: int = 2,
        pin_memory: bool = False,
    ) -> None:
        """Check and keep how images are loaded.

        Args:
            batch_size: Images per batch, at least 1.
            seed: Non-negative seed of all that is random about the data.
            num_workers: Loader processes; 0 loads in the main process.
            prefetch_factor: Batches that each worker reads ahead, at least 1; without meaning for 0 workers.
            pin_memory: Copy batches to page-locked memory, from which a GPU fetches them faster.

        Raises:
            InputError: If a number is too small.
        """
        super().__init__()
        self.batch_size = check_at_least(batch_size, 1, "batch_size", "give the number of images per batch")
        self.seed = check_at_least(seed, 0, "seed", "use a non-negative number")
        self.num_workers = check_at_least(num_workers, 0, "num_workers", "0 loads in the main process")
        self.prefetch_factor = check_at_least(prefetch_factor, 1, "prefetch_factor", "2 is usual")
        self.pin_memory = pin_memory

    @property
    def num_classes(self) -> int:
        """Number of classes, known from construction on."""
        return len(self.class_names)

    def _options(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "prefetch_factor": self.prefetch_factor if self.num_workers else None,
            "pin_memory": self.pin_memory,
            # With a generator of its own a loader leaves the global random state alone.
            "generator": torch.Generator().manual_seed(self.seed),
        }

    @property
    def _process(self) -> tuple[int, int]:
        """Number of this process, and of all that share the data; one alone without a trainer."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _clean_loader(self, data: ImageData, keys: Iterable[int] | None = None) -> DataLoader[Sample]:
        chosen = range(len(data)) if keys is None else keys
        return DataLoader(self._samples(data), self.batch_size, sampler=chosen, collate_fn=collate, **self._options())

    def _samples(self, data: ImageData, augment: Augment | None = None) -> Dataset[Sample]:
        return CleanDataset(data, augment, self.seed)


class SourceDataModule(Loading):
    """Clean images to train a source model on.

    A subclass sets ``class_names`` in ``__init__``, and ``train``, ``heldout``, ``test`` and, if it augments,
    ``augment`` in ``setup``. Batches are dictionaries of ``image`` (float32, ``(B, C, H, W)``, in [0, 1]), ``label``
    and ``index`` (int64, ``(B,)``; the index counts inside ``training_images``, ``heldout`` or ``test``). Nothing is
    normalised: that is the model's part.
    """

    train: ImageData
    heldout: ImageData
    test: ImageData
    augment: Augment | None = None

    def __init__(
        self,
        imbalance: Literal["exponential", "step"] | None = None,
        imbalance_ratio: float = 100,
        imbalance_seed: int = 0,
        **options: Any,  # noqa: ANN401 - Loading names and types them
    ) -> None:
        """Check and keep what every source has in common.

        Args:
            imbalance: Make the training images long-tailed: class sizes fall exponentially with the class number, or
                the second half of the classes is small (``step``); ``None`` takes all images.
            imbalance_ratio: Size of the largest class over that of the smallest, at least 1.
            imbalance_seed: Non-negative; chooses the images. 0 is the choice of the published long-tailed CIFAR.
            **options: Arguments of ``Loading``: ``batch_size``, ``seed``, ``num_workers``, ``prefetch_factor`` and
                ``pin_memory``.

        Raises:
            InputError: If an argument is out of range.
        """
        super().__init__(**options)
        if imbalance not in (None, "exponential", "step"):
            raise InputError(f"imbalance: {imbalance!r} is unknown; choose exponential, step, or leave it out.")
        check_ratio(imbalance_ratio, "imbalance_ratio")
        self.imbalance = imbalance
        self.imbalance_ratio = imbalance_ratio
        self.imbalance_seed = check_at_least(imbalance_seed, 0, "imbalance_seed", "use a non-negative number")

    @property
    def training_images(self) -> ImageData:
        """The images to train on: ``train``, or its long-tailed part. Reads the data set if ``setup`` did not."""
        if not hasattr(self, "train"):
            self.setup("fit")
        if self.imbalance is None:
            return self.train
        labels, ratio = self.train.labels, self.imbalance_ratio
        return self._take(long_tailed_subset(labels, self.num_classes, ratio, self.imbalance, self.imbalance_seed))

    def _take(self, kept: Ints) -> ImageData:
        return ImageSubset(self.train, kept)

    @property
    def class_counts(self) -> list[int]:
        """Number of training images of each class; reads the data set if ``setup`` has not run yet."""
        counts: list[int] = np.bincount(self.training_images.labels, minlength=self.num_classes).tolist()
        return counts

    def train_dataloader(self) -> StatefulDataLoader[Sample]:
        """Load the training images, shuffled anew in each epoch by the seed alone; resumes exactly.

        Raises:
            InputError: If there are more processes than images.
        """
        images = self.training_images
        rank, processes = self._process
        if len(images) < processes:
            raise InputError(f"{processes} processes cannot share {len(images)} training images: use fewer devices.")
        sampler = self._from_current_epoch(EpochSampler(len(images), self.seed, rank, processes))
        dataset = self._samples(images, self.augment)
        return StatefulDataLoader(dataset, self.batch_size, sampler=sampler, collate_fn=collate, **self._options())

    def _from_current_epoch(self, order: Order) -> Order:
        if self.trainer is not None:
            # What the trainer itself passes to set_epoch, but only after a resumed loader has started its workers.
            progress = self.trainer.fit_loop.epoch_progress.state_dict()
            order.set_epoch(progress["current"]["processed"])
        return order

    def val_dataloader(self) -> DataLoader[Sample]:
        """Load the held-out source images, in order, or this process' share of them."""
        return self._shared_loader(self.heldout)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Load the test images, clean and in order, or this process' share of them."""
        return self._shared_loader(self.test)

    def _shared_loader(self, data: ImageData) -> DataLoader[Sample]:
        """Each process takes every so manyth image; the first ones come twice where their number does not divide."""
        rank, processes = self._process
        numbers = cast(Dataset[int], range(len(data)))
        share: DistributedSampler[int] = DistributedSampler(numbers, processes, rank, shuffle=False)
        return self._clean_loader(data, share)
