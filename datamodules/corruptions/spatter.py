"""Drops of water or mud on the lens."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.corruptions.blur import gaussian_blur
from datamodules.corruptions.draws import Draws
from datamodules.corruptions.registry import corruption

WATER = (175 / 255, 238 / 255, 238 / 255)
MUD = (63 / 255, 42 / 255, 20 / 255)
WEAK, STRONG = 50, 150  # sums of the absolute Sobel derivatives
REACH = 20  # pixels from its edge at which a drop's relief is flat


@corruption
def spatter(
    images: Tensor,
    draws: Draws,
    mean: float,
    std: float,
    sigma: float,
    threshold: float,
    strength: float,
    softness: float,
    mud: float,
) -> Tensor:
    """Cover the image with drops: normal noise, smoothed by ``sigma``, where it exceeds ``threshold``.

    Water (``mud`` below one half, that is below severity 3.5) shines with ``strength`` at the rims of its drops; mud
    is opaque, with its outline smoothed by ``softness``.
    """
    noise = draws.normal(1, *images.shape[-2:], mean=mean, std=std)
    liquid = gaussian_blur(noise, draws, sigma)
    liquid = torch.where(liquid < threshold, 0, liquid)
    if mud < 0.5:
        return images + _colour(WATER, images) * (strength * _gloss(liquid))
    cover = gaussian_blur((liquid > threshold).float(), draws, softness)
    cover = torch.where(cover < 0.8, 0, cover)
    return torch.lerp(images, _colour(MUD, images).expand_as(images), cover)


def _colour(colour: tuple[float, float, float], images: Tensor) -> Tensor:
    red, green, blue = colour
    channels = colour if images.shape[1] == 3 else (0.2989 * red + 0.587 * green + 0.114 * blue,)
    return torch.tensor(channels, device=images.device).view(-1, 1, 1)


def _gloss(liquid: Tensor) -> Tensor:
    """Light the relief of drops: the distance from their edges, equalised, lit from one corner; at most 1 per image."""
    levels = (liquid[:, 0] * 255).floor_().clamp_(0, 255)
    distance = _box_average(edge_distance(detect_edges(levels))).floor_()
    lit = _box_average(_emboss(_equalise(distance))).round_()
    gloss = levels * lit
    return (gloss / gloss.amax((1, 2), keepdim=True).clamp_(min=1))[:, None]


def detect_edges(levels: Tensor) -> Tensor:
    """Find edges with Canny's detector: they start where the gradient exceeds ``STRONG`` and go on above ``WEAK``.

    Args:
        levels: Float32, ``(B, H, W)``, whole numbers from 0 to 255.

    Returns:
        Bool, ``(B, H, W)``.
    """
    x, y = _sobel(levels)
    steepness = x.abs().add_(y.abs())
    ridge = _is_ridge(x, y, steepness).logical_and_(steepness > WEAK)
    edges = ridge & (steepness > STRONG)
    while not torch.equal(grown := _neighbourhood(edges).logical_and_(ridge), edges):
        edges = grown
    return edges


def _sobel(levels: Tensor) -> tuple[Tensor, Tensor]:
    padded = F.pad(levels, [1] * 4, mode="replicate")
    across = padded[:, :, 2:] - padded[:, :, :-2]
    down = padded[:, 2:] - padded[:, :-2]
    x = (across[:, :-2] + across[:, 2:]).add_(across[:, 1:-1], alpha=2)
    y = (down[:, :, :-2] + down[:, :, 2:]).add_(down[:, :, 1:-1], alpha=2)
    return x, y


def _is_ridge(x: Tensor, y: Tensor, steepness: Tensor) -> Tensor:
    """Compare each pixel with its two neighbours along the gradient, of four directions the nearest."""
    at = _shifted(F.pad(steepness, [1] * 4), *steepness.shape[-2:])
    flat = y.abs() < x.abs() * (2**0.5 - 1)
    steep = y.abs() > x.abs() * (2**0.5 + 1)
    falling = (x < 0) != (y < 0)
    across = (steepness > at(0, -1)) & (steepness >= at(0, 1))
    down = (steepness > at(-1, 0)) & (steepness >= at(1, 0))
    fall = (steepness > at(-1, 1)) & (steepness > at(1, -1))
    rise = (steepness > at(-1, -1)) & (steepness > at(1, 1))
    return torch.where(flat, across, torch.where(steep, down, torch.where(falling, fall, rise)))


def _shifted(padded: Tensor, height: int, width: int) -> Callable[[int, int], Tensor]:
    return lambda down, right: padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def _neighbourhood(mask: Tensor) -> Tensor:
    rows = mask.clone()
    rows[:, 1:] |= mask[:, :-1]
    rows[:, :-1] |= mask[:, 1:]
    both = rows.clone()
    both[:, :, 1:] |= rows[:, :, :-1]
    both[:, :, :-1] |= rows[:, :, 1:]
    return both


def edge_distance(edges: Tensor) -> Tensor:
    """Measure the distance of every pixel to the nearest edge.

    Args:
        edges: Bool, ``(B, H, W)``.

    Returns:
        Float32, in pixels, at most ``REACH``.
    """
    down = torch.where(edges, 0, REACH).to(torch.int16)
    for step in (1, 2, 4, 8, 5):  # sums to REACH: each step looks as far again
        shorter = down.clone()
        _minimum_(shorter[:, step:], down[:, :-step] + step)
        _minimum_(shorter[:, :-step], down[:, step:] + step)
        down = shorter
    squares = down * down
    nearest = squares.clone()
    for step in range(1, min(REACH, edges.shape[-1] - 1) + 1):
        farther = squares + step * step
        _minimum_(nearest[:, :, step:], farther[:, :, :-step])
        _minimum_(nearest[:, :, :-step], farther[:, :, step:])
    return nearest.clamp_(max=REACH**2).float().sqrt_()


def _minimum_(values: Tensor, others: Tensor) -> None:
    torch.minimum(values, others, out=values)


def _equalise(levels: Tensor) -> Tensor:
    """Spread whole numbers from 0 to ``REACH`` evenly from 0 to 255, by their ranks within each image."""
    bins = REACH + 1
    images, pixels = len(levels), levels[0].numel()
    own = levels.long() + bins * torch.arange(images, device=levels.device)[:, None, None]
    counts = torch.bincount(own.flatten(), minlength=bins * images).view(images, bins)
    up_to = counts.cumsum(1)
    lowest = counts.gather(1, (counts > 0).long().argmax(1, keepdim=True))
    table = ((up_to - lowest) * (255 / (pixels - lowest).clamp(min=1))).clamp_(min=0).round_()
    return table.flatten()[own]


def _emboss(values: Tensor) -> Tensor:
    at = _shifted(F.pad(values, [1] * 4, mode="reflect"), *values.shape[-2:])
    lit = (at(1, 1) - at(-1, -1)).mul_(2).add_(values)
    return lit.add_(at(0, 1)).add_(at(1, 0)).sub_(at(0, -1)).sub_(at(-1, 0)).clamp_(0, 255)


def _box_average(values: Tensor) -> Tensor:
    padded = F.pad(values, [1] * 4, mode="reflect")
    rows = (padded[:, :-2] + padded[:, 1:-1]).add_(padded[:, 2:])
    return (rows[:, :, :-2] + rows[:, :, 1:-1]).add_(rows[:, :, 2:]).div_(9)
