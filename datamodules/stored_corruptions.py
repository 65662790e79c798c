"""The base of benchmarks whose corrupted images are stored, one set per corruption and severity."""

from typing import Any, ClassVar

from datamodules.checks import check_name
from datamodules.datasets import ImageData
from datamodules.stream import StreamDataModule
from tta.errors import InputError

STANDARD = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The fifteen corruptions of the benchmark, in the order of its tables: https://arxiv.org/abs/1903.12261, table 1."""

SEVERITIES = 5


class StoredCorruptions(StreamDataModule):
    """A stream of corrupted images that were published as files.

    Domains are ``NAME`` or ``NAME:SEVERITY`` with a whole severity from 1 to 5, and ``clean`` where the clean images
    are at hand. A subclass knows the names before it calls ``__init__`` of this class.
    """

    default_domains: ClassVar[tuple[str, ...]] = STANDARD

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - the base names and types them
        """Check the domains.

        Args:
            **options: Arguments of ``StreamDataModule``.

        Raises:
            InputError: If an argument is out of range, or images of a domain are not at hand.
        """
        super().__init__(**options)
        self._opened: dict[str, ImageData] = {}

    def stored_names(self) -> list[str]:
        """Names of the corruptions that are at hand, with ``clean`` if those images are."""
        raise NotImplementedError

    def read(self, name: str, severity: int) -> ImageData:
        """Open the images of a corruption and severity, or those of ``clean`` and 0; called after ``setup``."""
        raise NotImplementedError

    def available_domains(self) -> list[str]:
        """The fifteen corruptions of the benchmark; all others that are at hand have to be asked for."""
        return list(self.default_domains)

    def check_domain(self, text: str) -> str:
        """Check a domain and write its severity.

        Args:
            text: ``NAME``, ``NAME:SEVERITY`` or ``clean``.

        Returns:
            ``NAME:SEVERITY`` or ``clean``.

        Raises:
            InputError: If the corruption is not at hand or its severity is not 1, 2, 3, 4 or 5.
        """
        name, severity = self._parse(text)
        return f"{name}:{severity}" if severity else name

    def images_of(self, condition: str) -> ImageData:
        """The images of a corruption and severity, opened once.

        Args:
            condition: As ``check_domain`` writes it.
        """
        if condition not in self._opened:
            self._opened[condition] = self.read(*self._parse(condition))
        return self._opened[condition]

    def _parse(self, text: str) -> tuple[str, int]:
        name, _, severity = text.partition(":")
        check_name(name, self.stored_names(), "domains")
        if name == "clean":
            return name, 0
        severity = severity or f"{self.severity:g}"
        if severity not in [str(number) for number in range(1, SEVERITIES + 1)]:
            raise InputError(
                f"domains: {text!r} asks for severity {severity}; only 1, 2, 3, 4 and 5 are stored, "
                "other severities need a stream that corrupts on the fly."
            )
        return name, int(severity)
