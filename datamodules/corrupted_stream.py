"""The base of streams of clean images that are corrupted on the fly."""

import functools
from typing import Any, ClassVar, Literal

from datamodules.checks import check_name
from datamodules.corruptions import LEVELS, Domain, read_domain
from datamodules.datasets import BatchCorruption, ImageData, Sample
from datamodules.stream import StreamDataModule


class CorruptedStream(StreamDataModule):
    """A stream of clean images that are corrupted on the fly.

    Domains are corruptions: ``NAME``, ``NAME:SEVERITY`` (0 to 5, fractions allowed), several in turn joined by ``+``,
    or ``clean``. A subclass sets ``class_names`` in ``__init__`` and ``stream`` in ``setup``.
    """

    default_domains: ClassVar[tuple[str, ...]] = ("clean",)
    default_levels: ClassVar[str] = "auto"

    stream: ImageData

    def __init__(
        self,
        levels: str | None = None,
        corrupt_on: Literal["loader", "device"] = "loader",
        **options: Any,  # noqa: ANN401 - StreamDataModule names and types them
    ) -> None:
        """Check and keep how images are corrupted.

        Args:
            levels: Parameter set of the corruptions: ``32``, ``64`` or ``224`` for the published ones of that image
                size, ``auto`` for the nearest of them, or ``digits``; ``None`` takes what suits the data set.
            corrupt_on: Corrupt in the loader and its workers, or on the device of the model, whose random numbers are
                others than a CPU's.
            **options: Arguments of ``StreamDataModule`` and ``Loading``.

        Raises:
            InputError: If an argument is unknown or out of range.
        """
        self.levels = check_name(levels or self.default_levels, ("auto", *LEVELS), "levels")
        self.corrupt_on = check_name(corrupt_on, ("loader", "device"), "corrupt_on")
        super().__init__(**options)

    def available_domains(self) -> list[str]:
        """The corruptions that are shown by default."""
        return list(self.default_domains)

    def check_domain(self, text: str) -> str:
        """Check a domain and write all its severities."""
        return str(read_domain(text, self.severity, self.levels))

    def images_of(self, condition: str) -> ImageData:
        """The same clean images under every condition."""
        return self.stream

    def on_after_batch_transfer(self, batch: Sample, dataloader_idx: int) -> Sample:
        """Corrupt the images of the stream on the device, if that is where it is done."""
        if self.corrupt_on == "loader" or "condition" not in batch:
            return batch
        return self._corruption()(batch)

    def _corruption(self) -> BatchCorruption:
        return self._of_conditions

    @functools.cached_property
    def _of_conditions(self) -> BatchCorruption:
        domains = [Domain.parse(condition, self.severity) for condition in self.conditions]
        return BatchCorruption(domains, self.seed, self.levels)

    def _loader_corruption(self) -> BatchCorruption | None:
        return self._corruption() if self.corrupt_on == "loader" else None
