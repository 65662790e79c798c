"""Domains that are made from clean images: one corruption, several in turn, or none."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.checks import check_name
from datamodules.corruptions.draws import Draws, image_seed
from datamodules.corruptions.registry import CORRUPTIONS, check_available, check_severity, nearest_levels, parameters
from tta.errors import InputError

CACHED_VALUES = 2**20
"""Most values that a CPU corrupts at a time: what its caches hold. Whole batches took up to twice as long."""


@dataclass(frozen=True)
class Domain:
    """Corruptions that are applied in turn.

    Attributes:
        parts: Name and severity of each, in order of application; none leaves images clean.

    Raises:
        InputError: If a name is unknown or a severity out of range.
    """

    parts: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Reject what cannot be applied."""
        for name, severity in self.parts:
            check_name(name, [*CORRUPTIONS, "clean"], "domains")
            check_severity(severity)

    @classmethod
    def parse(cls, text: str, default_severity: float) -> "Domain":
        """Read ``"gaussian_noise"``, ``"gaussian_noise:3"``, ``"gaussian_noise:2.5+contrast:1"`` or ``"clean"``.

        Args:
            text: Corruptions joined by ``+``, each with its severity after a colon if it has one.
            default_severity: Taken where the text gives none.

        Returns:
            The domain; ``str`` gives the text back, with all severities.

        Raises:
            InputError: If a corruption is unknown or a severity is no number in [0, 5].
        """
        parts = tuple(_parse_part(part.strip(), default_severity) for part in text.split("+"))
        return cls(tuple(part for part in parts if part[0] != "clean"))

    def __str__(self) -> str:
        """Write ``name:severity``, joined by ``+``; ``clean`` for no corruption."""
        return "+".join(f"{name}:{severity:g}" for name, severity in self.parts) or "clean"


def _parse_part(text: str, default_severity: float) -> tuple[str, float]:
    name, colon, severity = text.partition(":")
    check_name(name, [*CORRUPTIONS, "clean"], "domains")
    if not colon:
        return name, default_severity
    try:
        return name, float(severity)
    except ValueError:
        raise InputError(
            f"domains: {text!r} has no number after the colon; write NAME or NAME:SEVERITY, such as {name}:3."
        ) from None


def read_domain(text: str, default_severity: float, levels: str) -> Domain:
    """Read a domain that a level set must have.

    Args:
        text: As ``Domain.parse`` takes it.
        default_severity: Taken where the text gives none.
        levels: A key of ``LEVELS``, or ``auto``.

    Returns:
        The domain.

    Raises:
        InputError: If it cannot be read, or the level set does not have a corruption of it.
    """
    domain = Domain.parse(text, default_severity)
    for name, _ in domain.parts:
        check_available(name, levels)
    return domain


def corrupt(images: Tensor, domain: Domain, seed: int, indices: Sequence[int], levels: str = "auto") -> Tensor:
    """Show images under a domain.

    The randomness of an image depends on the seed, the corruption and the image's index alone: neither the batch it
    comes in, nor its place there, nor the number of workers changes a pixel. Between whole severities the parameters
    are interpolated; between 0 and 1 the image fades linearly from clean to severity 1, with the same draws.

    Args:
        images: Float32, shape ``(B, C, H, W)`` with one or three channels, in [0, 1], on any device.
        domain: Corruptions to apply in turn.
        seed: Non-negative seed of the stream.
        indices: Position of each image in its data set, ``B`` numbers.
        levels: A key of ``LEVELS``; ``auto`` takes the published set that is nearest to the images' size.

    Returns:
        Same shape, dtype and device, in [0, 1].

    Raises:
        InputError: If the level set does not have a corruption of the domain.
    """
    chosen = nearest_levels(min(images.shape[-2:])) if levels == "auto" else levels
    result = images.clone() if not domain.parts else torch.empty_like(images)
    size = _piece(images)
    for start in range(0, len(images), size):
        piece = slice(start, start + size)
        _corrupt(images[piece], domain, seed, indices[piece], chosen, result[piece])
    return result


def _piece(images: Tensor) -> int:
    if images.device.type != "cpu" or len(images) == 0:
        return max(1, len(images))
    most = max(1, CACHED_VALUES // images[0].numel())
    return 1 << (most.bit_length() - 1)  # convolutions like an even number of channels


def _corrupt(images: Tensor, domain: Domain, seed: int, indices: Sequence[int], levels: str, result: Tensor) -> None:
    for name, severity in domain.parts:
        draws = Draws([image_seed(seed, name, index) for index in indices], images.device)
        corrupted = CORRUPTIONS[name](images, draws, *parameters(name, max(severity, 1), levels))
        if severity >= 1:
            images = torch.clamp(corrupted, 0, 1, out=result)
        else:
            images = torch.lerp(images, corrupted.clamp_(0, 1), severity, out=result)
