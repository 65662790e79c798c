"""The base of streams to adapt to."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.array_types import Ints
from datamodules.base import Loading
from datamodules.checks import check_at_least, check_distinct, check_name
from datamodules.corruptions import check_severity
from datamodules.covariate import CovariateSchedule, Sequential
from datamodules.datasets import BatchCorruption, ImageData, Sample, StreamDataset, whole
from datamodules.labels import LabelSchedule, Shuffled
from datamodules.loader import BatchKeys, StreamLoader
from datamodules.orders import BOUNDARIES, ORDERS, StreamPlan, make_plan, shard
from datamodules.samplers import random_subset
from tta.errors import InputError

DEFAULT_COVARIATE = Sequential()
DEFAULT_LABELS = Shuffled()
DEFAULTS = (DEFAULT_COVARIATE, DEFAULT_LABELS)


class StreamDataModule(Loading):
    """A stream of target images to adapt to, online and in one pass.

    ``train_dataloader`` *is* the stream: a sized loader that resumes at any batch, cut into one part per process when a
    trainer is attached. Three independent parts decide what comes when: the *covariate schedule* (under which condition
    images are shown), the *label schedule* (which classes come when) and the *order* (domain after domain, or all
    mixed). Only a few bytes per sample are held in memory; images are read when their batch is due.

    A subclass names its domains (``available_domains``, ``check_domain``), sets ``class_names`` in ``__init__``,
    prepares its images in ``setup`` and gives them by condition (``images_of``). If it has clean images of the source,
    ``setup`` sets ``source`` (training images) and ``heldout``.

    Batches are dictionaries of ``image`` (float32, ``(B, C, H, W)``, in [0, 1]), ``label``, ``domain`` (position in
    ``domains``), ``condition`` (position in the plan's conditions) and ``index`` (position among the images of the
    condition), each int64 of shape ``(B,)``. For single images set ``batch_size=1``.
    """

    source: ImageData | None = None
    heldout: ImageData | None = None

    def __init__(
        self,
        domains: list[str] | None = None,
        severity: float = 5,
        covariate: CovariateSchedule = DEFAULT_COVARIATE,
        labels: LabelSchedule = DEFAULT_LABELS,
        order: Literal["continual", "mixed"] = "continual",
        boundaries: Literal["known", "hidden"] = "known",
        label_delay: int = 0,
        samples_per_domain: int | None = None,
        source_samples: int = 512,
        **options: Any,  # noqa: ANN401 - Loading names and types them
    ) -> None:
        """Check and keep what every stream has in common.

        Args:
            domains: Domains in the order in which they are shown; ``None`` takes all that the data set has.
            severity: Severity of the corruptions that give none.
            covariate: When which condition is shown.
            labels: When which class is shown.
            order: Domain after domain (``continual``), or all shuffled together (``mixed``).
            boundaries: Whether a new batch starts where the domain changes (``known``, as published protocols do), or
                batches are cut without regard to domains (``hidden``).
            label_delay: Number of samples after which a sample's label is known to the figures of the run; adaptation
                never sees it.
            samples_per_domain: Keep this many random images of each domain; all if ``None``.
            source_samples: Most images that ``source_dataloader`` gives, at least 1.
            **options: Arguments of ``Loading``: ``batch_size``, ``seed``, ``num_workers``, ``prefetch_factor`` and
                ``pin_memory``.

        Raises:
            InputError: If an argument is out of range, a domain is unknown, or a domain comes twice.
        """
        super().__init__(**options)
        check_severity(severity)
        if samples_per_domain is not None:
            check_at_least(samples_per_domain, 1, "samples_per_domain", "leave it out to keep all images")
        self.severity = severity
        self.covariate = covariate
        self.labels = labels
        self.order = check_name(order, ORDERS, "order")
        self.boundaries = check_name(boundaries, BOUNDARIES, "boundaries")
        self.label_delay = check_at_least(label_delay, 0, "label_delay", "0 scores every sample at once")
        self.samples_per_domain = samples_per_domain
        self.source_samples = check_at_least(source_samples, 1, "source_samples", "512 is usual")
        texts = [self.check_domain(text) for text in (self.available_domains() if domains is None else domains)]
        check_distinct(texts, "domains", "write each domain once, or give a different severity")
        self.segments = covariate(texts)
        for condition in self.conditions:
            self.check_domain(condition)

    def available_domains(self) -> list[str]:
        """Every domain of the data set, in the order in which they are shown by default."""
        raise NotImplementedError

    def check_domain(self, text: str) -> str:
        """Check a domain or condition and write it in full.

        Args:
            text: As the user, or a covariate schedule, gives it.

        Returns:
            The same domain, always written in the same way.

        Raises:
            InputError: If the data set does not have it.
        """
        raise NotImplementedError

    def images_of(self, condition: str) -> ImageData:
        """The images that are shown under a condition; called after ``setup``."""
        raise NotImplementedError

    @property
    def conditions(self) -> list[str]:
        """Every condition, in order of appearance: the meaning of the ``condition`` numbers."""
        return list(dict.fromkeys(condition for segment in self.segments for condition in segment.conditions))

    @property
    def domains(self) -> list[str]:
        """Name of every domain, in order of appearance: the meaning of the ``domain`` numbers."""
        return list(dict.fromkeys(segment.domain for segment in self.segments))

    @property
    def schedule(self) -> str:
        """Order and schedules in a few words, such as ``continual, Dirichlet(gamma=0.1)``."""
        parts = [str(self.order)]
        parts += [_in_words(part) for part in (self.covariate, self.labels) if part not in DEFAULTS]
        parts += ["hidden boundaries"] if self.boundaries == "hidden" and self.order == "continual" else []
        return ", ".join(parts)

    def severities(self) -> list[dict[str, float]]:
        """Severity of each corruption of every condition; empty for conditions that name none."""
        return [_severities(condition) for condition in self.conditions]

    def plan(self) -> StreamPlan:
        """Decide what the whole stream shows when, before sharding; reads no image.

        Raises:
            InputError: If there is no image, or the stream is shorter than a batch.
        """
        kept = functools.cache(lambda size: random_subset(size, self.samples_per_domain, self.seed))
        plan = make_plan(
            self.segments,
            lambda condition: self._labels_of(condition, kept),
            self.num_classes,
            self.labels,
            self.order,
            self.seed,
            self.batch_size,
            self.boundaries,
        )
        if self.samples_per_domain is None:
            return plan
        index = plan.index.copy()
        sizes = np.array([len(self.images_of(condition)) for condition in plan.conditions])
        for size in np.unique(sizes).tolist():
            shown = (sizes == size)[plan.condition]
            index[shown] = kept(size)[index[shown]]
        return dataclasses.replace(plan, index=index)

    def domain_sizes(self) -> dict[str, int]:
        """Number of samples of each domain of the whole stream, by name."""
        counts = np.bincount(self.plan().domain, minlength=len(self.domains))
        return dict(zip(self.domains, counts.tolist(), strict=True))

    def _labels_of(self, condition: str, kept: Callable[[int], Ints]) -> Ints:
        images = self.images_of(condition)
        return images.labels if self.samples_per_domain is None else images.labels[kept(len(images))]

    def _corruption(self) -> BatchCorruption | None:
        return None

    def _loader_corruption(self) -> BatchCorruption | None:
        return self._corruption()

    def _dataset(self, corruption: BatchCorruption | None) -> StreamDataset:
        return StreamDataset([self.images_of(condition) for condition in self.conditions], corruption)

    def images_at(self, positions: Sequence[int]) -> Tensor:
        """Read images of the stream as it shows them.

        Args:
            positions: In the stream, counted in samples.

        Returns:
            Float32, shape ``(n, C, H, W)``, in [0, 1].
        """
        keys = self.plan().samples(np.asarray(positions, dtype=np.int64))
        return self._dataset(self._corruption()).__getitems__(keys)["image"]

    def train_dataloader(self) -> StreamLoader:
        """Load the stream, for adaptation: this process's part of it if a trainer is attached."""
        rank, processes = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        batches = shard(self.plan(), rank, processes)
        dataset = self._dataset(self._loader_corruption())
        return StreamLoader(dataset, batch_sampler=BatchKeys(batches), collate_fn=whole, **self._options())

    def test_dataloader(self) -> StreamLoader:
        """Load the same stream, to evaluate a frozen model."""
        return self.train_dataloader()

    def predict_dataloader(self) -> StreamLoader:
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


def _severities(condition: str) -> dict[str, float]:
    parts = (part.partition(":") for part in condition.split("+"))
    return {name: float(severity) for name, colon, severity in parts if colon}


def _in_words(part: CovariateSchedule | LabelSchedule) -> str:
    given = [
        f"{field.name}={getattr(part, field.name)!r}"
        for field in dataclasses.fields(part)  # type: ignore[arg-type]
        if getattr(part, field.name) != field.default
    ]
    return type(part).__name__ + (f"({', '.join(given)})" if given else "")
