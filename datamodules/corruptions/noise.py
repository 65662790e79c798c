"""Noise that is drawn for every value by itself."""

import torch
from torch import Tensor

from datamodules.corruptions.draws import Draws
from datamodules.corruptions.registry import corruption


@corruption
def gaussian_noise(images: Tensor, draws: Draws, std: float) -> Tensor:
    """Add independent normal noise to every value."""
    return draws.normal(*images.shape[1:]).mul_(std).add_(images)


@corruption
def shot_noise(images: Tensor, draws: Draws, photons: float) -> Tensor:
    """Count photons, ``photons`` of them on average where the image is white: Poisson noise."""
    return draws.poisson(images * photons).div_(photons)


@corruption
def impulse_noise(images: Tensor, draws: Draws, share: float) -> Tensor:
    """Replace a share of the values, half of them by 1 (salt), half by 0 (pepper), each channel by itself."""
    draw = draws.uniform(*images.shape[1:])
    return torch.where(draw < share, (draw < share / 2).to(images.dtype), images)


@corruption
def speckle_noise(images: Tensor, draws: Draws, std: float) -> Tensor:
    """Add normal noise in proportion to each value."""
    return draws.normal(*images.shape[1:]).mul_(std).add_(1).mul_(images)
