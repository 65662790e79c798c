"""Corruptions that make a target domain out of clean images, each with a severity between 1 and 5.

Lengths are in 32nds of the image's shorter side, so that a level means the same at every resolution. The randomness of
an image depends on the seed, the corruption and the image's index alone: neither the batch it comes in, nor the order,
nor the number of workers changes a pixel.
"""

import functools
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from datamodules.checks import check_name
from tta.errors import InputError

Corruption = Callable[[Tensor, float, torch.Generator], Tensor]
CORRUPTIONS: dict[str, Corruption] = {}
"""Every corruption by its name.

Each maps an image ``(C, H, W)``, floating, in [0, 1], a severity in [1, 5] and a CPU generator to a corrupted image of
the same shape, dtype and range; a severity out of range is an ``InputError``. ``C`` is 1 or 3.
"""


def check_severity(severity: float) -> None:
    """Reject a severity that the tables of levels do not cover.

    Args:
        severity: Any number.

    Raises:
        InputError: If it is outside [1, 5] or not a number.
    """
    if not 1 <= severity <= 5:
        raise InputError(f"severity: {severity} is outside [1, 5]; 1 is mild, 5 is hard, fractions are allowed.")


def _corruption(function: Corruption) -> Corruption:
    @functools.wraps(function)
    def checked(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        check_severity(severity)
        return function(image, severity, generator).clamp(0, 1)

    CORRUPTIONS[function.__name__] = checked
    return checked


def _level(severity: float, levels: tuple[float, float, float, float, float]) -> float:
    return float(np.interp(severity, (1, 2, 3, 4, 5), levels))


def _pixels(image: Tensor, length: float) -> float:
    return length * min(image.shape[-2:]) / 32


def _rand(generator: torch.Generator) -> float:
    return torch.rand((), generator=generator).item()


def _sign(generator: torch.Generator) -> float:
    return 1.0 if _rand(generator) < 0.5 else -1.0


@_corruption
def clean(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Leave the image as it is: the source domain, for streams that return to it."""
    return image


@_corruption
def gaussian_noise(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Add independent normal noise to every value."""
    std = _level(severity, (0.08, 0.13, 0.18, 0.24, 0.3))
    return image + std * torch.randn(image.shape, generator=generator, dtype=image.dtype)


@_corruption
def shot_noise(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Count photons: Poisson noise, the stronger the brighter the value."""
    photons = _level(severity, (30, 15, 8, 4.5, 2.5))
    return torch.poisson(image * photons, generator=generator) / photons


@_corruption
def impulse_noise(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Replace a share of the values by 0 or 1."""
    share = _level(severity, (0.03, 0.06, 0.1, 0.14, 0.18))
    draw = torch.rand(image.shape, generator=generator, dtype=image.dtype)
    return torch.where(draw < share, (draw < share / 2).to(image.dtype), image)


@_corruption
def gaussian_blur(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Average with a Gaussian window."""
    sigma = _pixels(image, _level(severity, (0.8, 1.3, 1.8, 2.25, 2.7)))
    radius = min(math.ceil(3 * sigma), min(image.shape[-2:]) - 1)
    corrupted: Tensor = F.gaussian_blur(image, [2 * radius + 1] * 2, [sigma] * 2)
    return corrupted


@_corruption
def motion_blur(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Average along a line of random direction."""
    half = _pixels(image, _level(severity, (2, 3, 4.5, 6, 7.5)))
    radius = min(math.ceil(half), min(image.shape[-2:]) - 1)
    angle = math.pi * _rand(generator)
    steps = torch.arange(-radius, radius + 1, dtype=image.dtype)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    kernel = (1 - across.abs()).clamp(min=0) * (half + 1 - along.abs()).clamp(0, 1)
    padded = functional.pad(image.unsqueeze(1), [radius] * 4, mode="reflect")
    return functional.conv2d(padded, (kernel / kernel.sum())[None, None]).squeeze(1)


@_corruption
def contrast(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Pull every value towards the mean of the image."""
    corrupted: Tensor = F.adjust_contrast(image, _level(severity, (0.9, 0.83, 0.77, 0.71, 0.66)))
    return corrupted


@_corruption
def brightness(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Add light everywhere, until bright values saturate."""
    return image + _level(severity, (0.05, 0.09, 0.13, 0.165, 0.2))


@_corruption
def pixelate(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Show the image in fewer, larger pixels."""
    scale = _level(severity, (0.5, 0.38, 0.3, 0.24, 0.19))
    small = [max(1, round(scale * side)) for side in image.shape[-2:]]
    coarse = F.resize(image, small, InterpolationMode.BILINEAR, antialias=True)
    corrupted: Tensor = F.resize(coarse, list(image.shape[-2:]), InterpolationMode.NEAREST)
    return corrupted


@_corruption
def jpeg(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Shrink the image, compress it with a low quality, and enlarge it, as with small thumbnails."""
    scale = _level(severity, (1, 0.8, 0.65, 0.5, 0.375))
    quality = round(_level(severity, (20, 12, 8, 5, 3)))
    small = F.resize(image, [round(scale * side) for side in image.shape[-2:]], antialias=True)
    coded = F.jpeg((small * 255).round().to(torch.uint8), quality).to(image.dtype) / 255
    corrupted: Tensor = F.resize(coded, list(image.shape[-2:]), antialias=True)
    return corrupted


@_corruption
def occlusion(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Cover a square at a random place with grey."""
    height, width = image.shape[-2:]
    side = max(1, round(_pixels(image, _level(severity, (5, 8, 11, 14, 16)))))
    top = int(_rand(generator) * (height - side + 1))
    left = int(_rand(generator) * (width - side + 1))
    corrupted: Tensor = F.erase(image, top, left, side, side, torch.full((), 0.5, dtype=image.dtype))
    return corrupted


@_corruption
def affine(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Rotate and shear, each to a random side."""
    angle = _sign(generator) * _level(severity, (10, 17, 24, 31, 38))
    shear = _sign(generator) * _level(severity, (4, 8, 12, 16, 20))
    corrupted: Tensor = F.affine(image, angle, [0, 0], 1.0, [shear, 0.0], InterpolationMode.BILINEAR)
    return corrupted


@_corruption
def invert(image: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Invert the bright values (solarise) and dim the image; the harder, the more values count as bright."""
    threshold = _level(severity, (0.95, 0.9, 0.85, 0.8, 0.75))
    dimmed: Tensor = F.solarize(image, threshold) * _level(severity, (1, 0.97, 0.95, 0.92, 0.9))
    return dimmed


@dataclass(frozen=True)
class Domain:
    """A corruption at a severity.

    Attributes:
        name: A key of ``CORRUPTIONS``.
        severity: In [1, 5]; without meaning for ``clean``.

    Raises:
        InputError: If the name is unknown or the severity out of range.
    """

    name: str
    severity: float

    def __post_init__(self) -> None:
        """Reject what cannot be applied."""
        check_name(self.name, CORRUPTIONS, "domains")
        check_severity(self.severity)

    @classmethod
    def parse(cls, text: str, default_severity: float) -> "Domain":
        """Read ``"gaussian_noise:3"`` or ``"gaussian_noise"``.

        Args:
            text: A corruption and, after a colon, its severity.
            default_severity: Taken if the text has none.

        Returns:
            The domain; ``str`` gives the text back.

        Raises:
            InputError: If the corruption is unknown or the severity is no number in [1, 5].
        """
        name, colon, severity = text.partition(":")
        if not colon:
            return cls(name, default_severity)
        try:
            return cls(name, float(severity))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"domains: {text!r} has no number after the colon; write NAME or NAME:SEVERITY, such as {name}:3."
            ) from None

    def __str__(self) -> str:
        """Write ``name:severity``, and ``clean`` for the domain without one."""
        return self.name if self.name == "clean" else f"{self.name}:{self.severity:g}"


def generator_for(seed: int, name: str, index: int) -> torch.Generator:
    """Make the generator that decides all the randomness of one image.

    Args:
        seed: Non-negative seed of the stream.
        name: What is drawn, such as the name of a corruption.
        index: Position of the image in its data set.

    Returns:
        A fresh CPU generator; equal arguments give equal generators in every process and on every machine.
    """
    entropy = np.random.SeedSequence([seed, zlib.crc32(name.encode()), index]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(entropy[0]))


def corrupt(image: Tensor, domain: Domain, seed: int, index: int) -> Tensor:
    """Apply a domain to an image.

    Args:
        image: Shape ``(C, H, W)`` with one or three channels, floating, in [0, 1].
        domain: The corruption and its severity.
        seed: Non-negative seed of the stream.
        index: Position of the image in its data set.

    Returns:
        Same shape and dtype, in [0, 1].
    """
    return CORRUPTIONS[domain.name](image, domain.severity, generator_for(seed, domain.name, index))
