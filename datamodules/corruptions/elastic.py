"""Elastic distortion: the image is sheared as a whole, and stretched here and there."""

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.corruptions.draws import Draws
from datamodules.corruptions.registry import corruption


@corruption
def elastic_transform(images: Tensor, draws: Draws, alpha: float, sigma: float, displacement: float) -> Tensor:
    """Move three points by up to ``displacement`` pixels along each axis, then all pixels by a smooth random field.

    The field is uniform noise in ``[-alpha, alpha)`` pixels, smoothed by a Gaussian of ``sigma`` pixels that is cut at
    three sigmas. Values between pixels are interpolated linearly; the border is mirrored.
    """
    height, width = images.shape[-2:]
    x, y = _displaced(draws.uniform(3, 2, low=-displacement, high=displacement), height, width)
    sheared = _sample(images, x, y, mirrored_at_centres=True)
    field = draws.uniform(2, height, width, low=-alpha, high=alpha)
    across, down = (_smoothing(side, sigma).to(images.device) for side in (width, height))
    smooth = torch.matmul(torch.matmul(down, field), across.t())
    rows, columns = _pixels(height, width, images.device)
    return _sample(sheared, columns + smooth[:, 0], rows + smooth[:, 1], mirrored_at_centres=False)


def _displaced(displacements: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    # The published triangle: a right angle at the second point, legs of two thirds of the shorter side.
    leg = 2.0 * (min(height, width) // 3)
    corner = torch.tensor([width // 2 + leg / 2, height // 2 - leg / 2], device=displacements.device)
    below, corner_moved, left = (
        displacements + torch.tensor([[0.0, leg], [0, 0], [-leg, 0]], device=corner.device)
    ).unbind(1)
    down, right = (below - corner_moved) / leg, (corner_moved - left) / leg
    determinant = right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0]
    rows, columns = _pixels(height, width, displacements.device)
    from_corner = (corner + corner_moved)[:, :, None, None]
    x, y = columns - from_corner[:, 0], rows - from_corner[:, 1]
    right, down = (part[:, :, None, None] / determinant[:, None, None, None] for part in (right, down))
    return down[:, 1] * x - down[:, 0] * y + corner[0], right[:, 0] * y - right[:, 1] * x + corner[1]


def _pixels(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.arange(height, device=device)[:, None], torch.arange(width, device=device)


def _sample(images: Tensor, x: Tensor, y: Tensor, mirrored_at_centres: bool) -> Tensor:
    """Read images between pixels; the mirror stands at the outermost pixels' centres, or at their outer edges."""
    height, width = images.shape[-2:]
    if mirrored_at_centres:
        grid = torch.stack([x * (2 / (width - 1)) - 1, y * (2 / (height - 1)) - 1], -1)
    else:
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=mirrored_at_centres)


@functools.lru_cache(maxsize=64)
def _smoothing(side: int, sigma: float) -> Tensor:
    """Write the Gaussian window with mirrored borders as a matrix, ``(side, side)``: it may be wider than the image."""
    radius = int(3 * sigma + 0.5)
    taps = torch.arange(-radius, radius + 1)
    weights = torch.exp(-(taps.double() ** 2) / (2 * max(sigma, 1e-6) ** 2))
    sources = (torch.arange(side)[:, None] + taps) % (2 * side)
    sources = torch.minimum(sources, 2 * side - 1 - sources)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    return matrix.scatter_add_(1, sources, (weights / weights.sum()).expand(side, -1)).float()
