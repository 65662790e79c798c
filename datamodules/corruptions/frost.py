"""Synthetic textures of frost on a window, from fixed seeds: no photograph stands behind a pixel."""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 512
ANGLES = 32
RANKS = (0.0, 0.002, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 0.998, 1.0)


@dataclass(frozen=True)
class Frost:
    """What a kind of frost looks like: its crystals, and its statistics.

    Attributes:
        barbs: Strength of the barbs; crystals without are needles.
        length: Of the longest crystals, in pixels.
        colour: Mean of red, green and blue, in [0, 1].
        contrast: Standard deviation of red, green and blue.
        quantiles: Of the standardised brightness, at ``RANKS``.
        spectrum: Base-2 logarithm of the relative power at one, two, four... up to 256 cycles per texture.
    """

    barbs: float
    length: float
    colour: tuple[float, float, float]
    contrast: tuple[float, float, float]
    quantiles: tuple[float, ...]
    spectrum: tuple[float, ...]


KINDS = (
    Frost(
        barbs=0.0,
        length=40,
        colour=(0.305, 0.585, 0.65),
        contrast=(0.106, 0.065, 0.06),
        quantiles=(-2.7, -2.1, -1.73, -1.22, -0.74, -0.1, 0.64, 1.37, 2.3, 3.2, 4.9),
        spectrum=(13.8, 11.8, 8.1, 5.7, 3.1, 0.8, -0.2, -1.1, -3.3),
    ),
    Frost(
        barbs=0.0,
        length=70,
        colour=(0.787, 0.805, 0.841),
        contrast=(0.084, 0.087, 0.089),
        quantiles=(-6.8, -4.1, -2.5, -1.33, -0.55, 0.14, 0.7, 1.13, 1.61, 2.04, 2.24),
        spectrum=(12.3, 11.4, 6.8, 5.5, 4.2, 3.1, 0.9, -0.8, -3.5),
    ),
    Frost(
        barbs=0.5,
        length=30,
        colour=(0.54, 0.599, 0.648),
        contrast=(0.112, 0.112, 0.117),
        quantiles=(-4.5, -3.2, -2.1, -1.24, -0.62, 0.0, 0.6, 1.17, 2.3, 3.5, 3.7),
        spectrum=(13.0, 10.6, 5.5, 4.7, 3.8, 2.6, 1.5, 0.0, -2.5),
    ),
    Frost(
        barbs=1.0,
        length=60,
        colour=(0.441, 0.484, 0.528),
        contrast=(0.174, 0.17, 0.163),
        quantiles=(-2.26, -1.98, -1.7, -1.23, -0.75, -0.11, 0.63, 1.38, 2.37, 3.0, 3.1),
        spectrum=(12.8, 8.0, 6.7, 5.8, 4.2, 2.3, 0.4, -1.5, -2.8),
    ),
)
SHARES = (0, 1, 1, 2, 3)  # of five published photographs, two are the same


@functools.lru_cache(maxsize=8)
def frost_textures(scale: float, device: torch.device | str = "cpu") -> Tensor:
    """Grow the textures, or shrink them.

    The statistics of the kinds (colour, contrast, spread of the brightness, spectrum) are those of the published
    photographs, on average over each.

    Args:
        scale: Positive; below one, pixels are interpolated between the nearest four, as published, which leaves the
            finest crystals as glitter.
        device: Where to keep them.

    Returns:
        Float32, ``(5, 3, side, side)`` in [0, 1], where ``side`` is ``scale * 512``; opposite borders fit together.
    """
    textures = torch.stack(_grown())[list(SHARES)]
    shrunk = textures if scale == 1 else F.interpolate(textures, [round(scale * SIDE)] * 2, mode="bilinear")
    return shrunk.to(device)


@functools.lru_cache(maxsize=1)
def _grown() -> list[Tensor]:
    return [_grow(kind, seed) for seed, kind in enumerate(KINDS)]


def _grow(kind: Frost, seed: int) -> Tensor:
    brightness = _crystals(kind, torch.Generator().manual_seed(seed))
    for _ in range(2):
        brightness = _with_quantiles(_with_spectrum(brightness, kind.spectrum), kind.quantiles)
    colour, contrast = (torch.tensor(part).view(3, 1, 1) for part in (kind.colour, kind.contrast))
    return (colour + contrast * brightness).clamp_(0, 1)


def _crystals(kind: Frost, generator: torch.Generator) -> Tensor:
    """Strew crystals of many directions and sizes, the brighter over the darker."""
    pattern = torch.zeros(SIDE * SIDE)
    for turn in range(ANGLES):
        for length, count in ((kind.length, 12), (kind.length / 2, 48), (kind.length / 4, 96)):
            rows, columns, values = _crystal(length, kind.barbs, math.tau * turn / ANGLES)
            places = torch.randint(SIDE, (2, count, 1), generator=generator)
            pixels = (rows + places[0]) % SIDE * SIDE + (columns + places[1]) % SIDE
            shades = values * torch.rand(count, 1, generator=generator)
            pattern.scatter_reduce_(0, pixels.flatten(), shades.flatten(), "amax")
    return pattern.view(SIDE, SIDE)


def _crystal(length: float, barbs: float, angle: float) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a crystal: a spine, and barbs at 60 degrees, as ice has them.

    Returns:
        Row and column of each of its pixels, int64, counted from its root, and their values, float32, in (0, 1].
    """
    reach = torch.arange(-math.ceil(length), math.ceil(length) + 1)
    y, x = reach[:, None], reach
    along, across = x * math.cos(angle) + y * math.sin(angle), (y * math.cos(angle) - x * math.sin(angle)).abs()
    share = (along / length).clamp(0, 1)
    taper = 4 * share * (1 - share)
    spine = torch.exp(-((across / (0.4 + 1.2 * taper)) ** 2))
    wave = torch.cos((along - across / math.sqrt(3)) * (math.tau / 5)).clamp(min=0) ** 2
    vane = torch.sigmoid(0.3 * length * (1 - share) - across) * wave
    crystal = taper.sqrt() * torch.maximum(spine, barbs * vane)
    rows, columns = (crystal > 0.02).nonzero().unbind(1)
    return rows - math.ceil(length), columns - math.ceil(length), crystal[rows, columns]


def _offsets() -> tuple[Tensor, Tensor]:
    offsets = torch.fft.fftfreq(SIDE, 1 / SIDE)
    return offsets[:, None], offsets


def _with_spectrum(brightness: Tensor, target: tuple[float, ...]) -> Tensor:
    """Scale the power in rings of frequencies, an octave apart, to the target, in between by interpolation."""
    y, x = _offsets()
    octave = torch.hypot(y, x[: SIDE // 2 + 1].abs()).clamp(min=1).log2()
    spectrum = torch.fft.rfft2(brightness - brightness.mean())
    power = spectrum.abs() ** 2
    ratios = []
    for ring, wanted in enumerate(target):
        inside = (octave - ring).abs() < 0.5
        ratios.append(2.0**wanted / power[inside].mean())
    below = octave.floor().clamp(max=len(target) - 1).long()
    above = (below + 1).clamp(max=len(target) - 1)
    logs = torch.stack(ratios).log2()
    gain = torch.lerp(logs[below], logs[above], (octave - below).clamp(0, 1))
    shaped: Tensor = torch.fft.irfft2(spectrum * torch.exp2(gain / 2))
    return shaped


def _with_quantiles(brightness: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """Give the values another distribution, in the order that they have; mean 0, standard deviation 1."""
    ranks = torch.empty(SIDE * SIDE)
    ranks[brightness.flatten().argsort()] = torch.linspace(0, 1, SIDE * SIDE)
    knots, values = torch.tensor(RANKS), torch.tensor(quantiles)
    below = torch.searchsorted(knots, ranks, right=True).clamp(1, len(RANKS) - 1) - 1
    share = (ranks - knots[below]) / (knots[below + 1] - knots[below])
    mapped = torch.lerp(values[below], values[below + 1], share).view(SIDE, SIDE)
    return (mapped - mapped.mean()) / mapped.std()
