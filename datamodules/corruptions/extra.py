"""Corruptions of our own, for small handwritten digits; they stand in the level set ``digits`` only."""

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.corruptions.draws import Draws
from datamodules.corruptions.registry import corruption


@corruption
def occlusion(images: Tensor, draws: Draws, side: float) -> Tensor:
    """Cover a square at a random place with grey; its side is in 32nds of the image's shorter side."""
    height, width = images.shape[-2:]
    pixels = max(1, round(side * min(height, width) / 32))
    place = draws.uniform(2)
    rows, columns = (
        _covered(length, pixels, start) for length, start in zip((height, width), place.unbind(1), strict=True)
    )
    return images.masked_fill((rows[:, :, None] & columns[:, None])[:, None], 0.5)


@corruption
def affine(images: Tensor, draws: Draws, angle: float, shear: float) -> Tensor:
    """Rotate about the centre and shear along x, by so many degrees each and each to a random side; fill with black."""
    height, width = images.shape[-2:]
    signs = 1.0 - 2.0 * draws.integers(2, low=0, high=2)
    turn, slant = (signs * torch.tensor([angle, shear], device=images.device)).deg2rad().unbind(1)
    cos, sin, tan = turn.cos(), turn.sin(), slant.tan()
    stretch = height / width
    x = torch.stack([cos - sin * tan, (sin + cos * tan) * stretch, torch.zeros_like(cos)], 1)
    y = torch.stack([-sin / stretch, cos, torch.zeros_like(cos)], 1)
    grid = F.affine_grid(torch.stack([x, y], 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


@corruption
def invert(images: Tensor, draws: Draws, threshold: float, dimming: float) -> Tensor:
    """Invert the values from ``threshold`` on (solarise), and multiply all by ``dimming``."""
    return torch.where(images >= threshold, 1 - images, images) * dimming


def _covered(length: int, side: int, place: Tensor) -> Tensor:
    start = (place * (length - side + 1)).long()[:, None]
    position = torch.arange(length, device=place.device)
    return (position >= start) & (position < start + side)
