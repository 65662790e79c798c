"""Blurs: of the lens, of the air, of frosted glass, and of a moving camera."""

import functools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.corruptions.draws import Draws
from datamodules.corruptions.registry import corruption

FOURIER_SIDE = 13
"""Side of a kernel from which on Fourier transforms are faster than sums, at 224 pixels."""


@corruption
def gaussian_blur(images: Tensor, draws: Draws, sigma: float) -> Tensor:
    """Average with a Gaussian window of ``sigma`` pixels, cut at four sigmas; the border repeats the edge."""
    window = gaussian_window(sigma, int(4 * sigma + 0.5))
    radius = len(window) // 2
    padded = F.pad(images, [radius] * 4, mode="replicate")
    return correlate(correlate(padded, window[:, None]), window[None])


@corruption
def defocus_blur(images: Tensor, draws: Draws, radius: float, alias_blur: float) -> Tensor:
    """Average over a disk, whose edge is smoothed by a Gaussian of ``alias_blur``; the border is mirrored."""
    kernel = disk(radius, alias_blur)
    mirrored = _mirror(images, len(kernel) // 2)
    return correlate(mirrored, kernel) if len(kernel) < FOURIER_SIDE else correlate_by_fourier(mirrored, kernel)


@corruption
def glass_blur(images: Tensor, draws: Draws, sigma: float, max_delta: float, iterations: float) -> Tensor:
    """Blur, let every pixel take the place of a near one ``iterations`` times, and blur again.

    Pixels move by ``-max_delta`` to ``max_delta - 1`` along each axis, from the bottom right to the top left, so that
    one that moved may move on. As published, a pixel is copied rather than exchanged.
    """
    height, width = images.shape[-2:]
    reach = round(max_delta)
    moves = draws.integers(round(iterations), 2, height, width, low=-reach, high=reach)
    sources = torch.arange(height * width, device=images.device).expand(len(images), -1)
    for move in moves.unbind(1):
        sources = sources.gather(1, move_sources(move, reach))
    blurred = gaussian_blur(images, draws, sigma).flatten(2)
    moved = blurred.gather(2, sources[:, None].expand_as(blurred)).view_as(images)
    return gaussian_blur(moved, draws, sigma)


@corruption
def motion_blur(images: Tensor, draws: Draws, radius: float, sigma: float) -> Tensor:
    """Drag the image in a direction within 45 degrees of the horizontal."""
    return drag(images, draws.uniform(low=-45, high=45), radius, sigma)


@corruption
def zoom_blur(images: Tensor, draws: Draws, largest: float, layers: float) -> Tensor:
    """Average the image with ``layers`` enlargements of its centre, by factors evenly from 1 to ``largest``."""
    factors = np.linspace(1, largest + 1e-9, round(layers))  # sizes that are ties round up, as they do when published
    total = images * 2  # the image itself, and its enlargement by 1
    for factor in factors[1:]:
        total += _enlarged_centre(images, float(factor))
    return total / (len(factors) + 1)


@functools.lru_cache(maxsize=256)
def gaussian_window(sigma: float, radius: int) -> Tensor:
    """Sample a Gaussian at the whole numbers from ``-radius`` to ``radius``; float32, ``(2 * radius + 1,)``, sum 1."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    window = torch.exp(-(offsets**2) / (2 * sigma**2))
    return (window / window.sum()).float()


@functools.lru_cache(maxsize=256)
def disk(radius: float, alias_blur: float) -> Tensor:
    """Draw a disk with smooth edges.

    Args:
        radius: In pixels.
        alias_blur: Standard deviation of the Gaussian that smooths the edge, in pixels, positive.

    Returns:
        Float32, square with an odd side, sum near 1; empty margins are left out.
    """
    half, smooth = (8, 1) if radius <= 8 else (math.ceil(radius), 2)
    squares = torch.arange(-half, half + 1) ** 2
    aliased = (squares[:, None] + squares <= radius**2).float()[None, None]
    edge = gaussian_window(alias_blur, smooth)
    padded = F.pad(aliased / aliased.sum(), [smooth] * 4, mode="reflect")
    kernel = F.conv2d(padded, torch.outer(edge, edge)[None, None])[0, 0]
    empty = min(int(kernel.sum(0).nonzero()[0]), half)
    return kernel[empty : 2 * half + 1 - empty, empty : 2 * half + 1 - empty].contiguous()


def correlate(images: Tensor, kernel: Tensor) -> Tensor:
    """Correlate every channel with a kernel, without padding.

    Args:
        images: Float32, ``(B, C, H, W)``.
        kernel: Float32, ``(h, w)``.

    Returns:
        Float32, ``(B, C, H - h + 1, W - w + 1)``.
    """
    planes = images.reshape(1, -1, *images.shape[-2:])
    if planes.shape[1] == 1:  # a lone plane takes another path through the library, with other rounding
        return correlate(images.expand(2, -1, -1, -1), kernel)[:1]
    weight = kernel.to(images.device).expand(planes.shape[1], 1, -1, -1)
    correlated = F.conv2d(planes, weight, groups=planes.shape[1])
    return correlated.view(*images.shape[:2], *correlated.shape[-2:])


def correlate_by_fourier(images: Tensor, kernel: Tensor) -> Tensor:
    """Do the same as ``correlate`` by Fourier transforms, whose cost does not grow with the kernel.

    Args:
        images: Float32, ``(B, C, H, W)``.
        kernel: Float32, ``(h, w)``.

    Returns:
        Float32, ``(B, C, H - h + 1, W - w + 1)``; equal to ``correlate`` up to rounding, some 1e-6.
    """
    size = [_fast_length(side) for side in images.shape[-2:]]
    spectrum = torch.fft.rfft2(kernel.flip(0, 1).to(images.device), s=size)
    correlated: Tensor = torch.fft.irfft2(torch.fft.rfft2(images, s=size).mul_(spectrum), s=size)
    return correlated[..., len(kernel) - 1 : images.shape[-2], kernel.shape[1] - 1 : images.shape[-1]]


def _fast_length(side: int) -> int:
    rest = side
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    return side if rest == 1 else _fast_length(side + 1)


def _mirror(images: Tensor, margin: int) -> Tensor:
    if margin < min(images.shape[-2:]):
        return F.pad(images, [margin] * 4, mode="reflect")
    rows, columns = (_mirrored_positions(side, margin, images.device) for side in images.shape[-2:])
    return images[..., rows[:, None], columns]  # more than one reflection


def _mirrored_positions(side: int, margin: int, device: torch.device) -> Tensor:
    period = 2 * (side - 1)
    positions = torch.arange(-margin, side + margin, device=device) % period
    return torch.minimum(positions, period - positions)


def move_sources(moves: Tensor, reach: int) -> Tensor:
    """Find where each pixel comes from after all have moved in turn, from the bottom right to the top left.

    A pixel whose source moved before it takes what the source took: it points on, and chains of pointers are followed
    for all pixels at once, twice as far with each step.

    Args:
        moves: Int64, ``(B, 2, H, W)``: how far each pixel's source lies down and to the right, below ``reach``.
        reach: Width of the border that stays; one row and column more at the top and left.

    Returns:
        Int64, ``(B, H * W)``: position in the flattened image before the moves.
    """
    height, width = moves.shape[-2:]
    rows, columns = (torch.arange(side, device=moves.device) for side in (height, width))
    inside = _moving(rows, reach)[:, None] & _moving(columns, reach)
    position = rows[:, None] * width + columns
    source = torch.where(inside, position + moves[:, 0] * width + moves[:, 1], position)
    moved_before = (source > position) & inside.flatten()[source]
    pointer = torch.where(moved_before, source, -1 - source).flatten(1)
    while bool((pointer >= 0).any()):  # negative: the pixel as it was
        pointer = torch.where(pointer >= 0, pointer.gather(1, pointer.clamp(min=0)), pointer)
    return -1 - pointer


def _moving(positions: Tensor, reach: int) -> Tensor:
    return (positions > reach) & (positions <= len(positions) - reach)


def drag(images: Tensor, angles: Tensor, radius: float, sigma: float) -> Tensor:
    """Smear each image along a line, with weights that fall off to one side as a Gaussian does.

    Args:
        images: Float32, ``(B, C, H, W)``.
        angles: Direction for each image, ``(B,)``, in degrees clockwise from the right.
        radius: Half the length of the smear, in pixels.
        sigma: Of the Gaussian, in pixels, positive.

    Returns:
        Same shape; beyond the border the outermost pixel is repeated.
    """
    taps = torch.arange(2 * round(radius) + 1, dtype=torch.float64)
    weights = torch.exp(-(taps**2) / (2 * sigma**2))
    shares = (weights / weights.sum()).tolist()
    pairs = zip(images, angles.tolist(), strict=True)
    return torch.stack([_drag_one(image, math.radians(angle), shares) for image, angle in pairs])


def _drag_one(image: Tensor, angle: float, weights: list[float]) -> Tensor:
    # Adding shifted views of one image that stays in the cache beats a gather or a convolution of the whole batch.
    height, width = image.shape[-2:]
    down = [math.ceil(tap * math.sin(angle) - 0.5) for tap in range(len(weights))]
    right = [math.ceil(tap * math.cos(angle) - 0.5) for tap in range(len(weights))]
    top, left = -min(down), -min(right)
    padded = F.pad(image[None], [left, max(right), top, max(down)], mode="replicate")[0]
    dragged = torch.zeros_like(image)
    for y, x, weight in zip(down, right, weights, strict=True):
        dragged.add_(padded[:, top + y : top + y + height, left + x : left + x + width], alpha=weight)
    return dragged


def _enlarged_centre(images: Tensor, factor: float) -> Tensor:
    height, width = images.shape[-2:]
    rows, columns = (math.ceil(side / factor) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    size = [round(rows * factor), round(columns * factor)]
    centre = images[..., top : top + rows, left : left + columns]
    enlarged = F.interpolate(centre, size, mode="bilinear", align_corners=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return enlarged[..., top : top + height, left : left + width]
