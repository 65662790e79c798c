"""Weather between the camera and the scene: snow, frost on the window, and fog."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.corruptions.blur import drag
from datamodules.corruptions.draws import Draws
from datamodules.corruptions.frost import frost_textures
from datamodules.corruptions.registry import corruption


@corruption
def snow(
    images: Tensor,
    draws: Draws,
    mean: float,
    std: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    clarity: float,
) -> Tensor:
    """Let flakes fall in front of a whitened image.

    Flakes are normal noise, enlarged by ``zoom``, zero below ``threshold``, smeared along their fall within 45 degrees
    of the vertical (``radius`` and ``sigma`` as in ``drag``), and added twice, once upside down. ``clarity`` is the
    share of the image that is not whitened.
    """
    flakes = _enlarged_noise(draws, images.shape[-2:], mean, std, zoom)
    flakes = torch.where(flakes < threshold, 0, flakes.clamp(0, 1))
    flakes = drag(flakes, draws.uniform(low=-135, high=-45), radius, sigma)
    white = torch.maximum(images, luminance(images) * 1.5 + 0.5)
    return torch.lerp(white, images, clarity) + (flakes + flakes.flip(-2, -1))


@corruption
def frost(images: Tensor, draws: Draws, clarity: float, weight: float, scale: float) -> Tensor:
    """Add ice: ``clarity`` times the image and ``weight`` times a part of a frost texture, shrunk to ``scale``.

    The published corruption takes photographs of frost. Ours takes synthetic textures with their statistics.
    """
    height, width = images.shape[-2:]
    textures = frost_textures(round(scale, 4), images.device)
    side = textures.shape[-1]
    kind = draws.integers(low=0, high=len(textures))
    corner = draws.integers(2, low=0, high=side)
    rows = (corner[:, :1] + torch.arange(height, device=images.device)) % side
    columns = (corner[:, 1:] + torch.arange(width, device=images.device)) % side
    ice = textures.permute(0, 2, 3, 1)[kind[:, None, None], rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
    if images.shape[1] == 1:
        ice = luminance(ice)
    return torch.add(images * clarity, ice, alpha=weight)


@corruption
def fog(images: Tensor, draws: Draws, amount: float, decay: float) -> Tensor:
    """Add clouds of light, and dim the sum so that the brightest value stays; a larger ``decay`` smooths the clouds."""
    height, width = images.shape[-2:]
    brightest = images.amax((1, 2, 3), keepdim=True)
    clouds = _plasma(draws, 2 ** math.ceil(math.log2(max(height, width))), decay)[:, None, :height, :width]
    return torch.add(images, clouds, alpha=amount) * (brightest / (brightest + amount))


def luminance(images: Tensor) -> Tensor:
    """Weigh the channels as the eye does (ITU-R BT.601): ``(B, 3, H, W)`` to ``(B, 1, H, W)``; grey stays as it is."""
    if images.shape[1] == 1:
        return images
    red, green, blue = (images[:, channel, None] for channel in range(3))
    return (0.299 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _enlarged_noise(draws: Draws, shape: torch.Size, mean: float, std: float, zoom: float) -> Tensor:
    height, width = shape
    rows, columns = (math.ceil(side / zoom) for side in (height, width))
    size = [max(round(rows * zoom), height), max(round(columns * zoom), width)]
    noise = draws.normal(1, rows, columns, mean=mean, std=std)
    enlarged = F.interpolate(noise, size, mode="bilinear", align_corners=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return enlarged[..., top : top + height, left : left + width]


def _plasma(draws: Draws, side: int, decay: float) -> Tensor:
    """Draw random heights with the diamond-square algorithm.

    Args:
        draws: One generator for each image.
        side: A power of two.
        decay: By which the square root of the roughness falls when the grid becomes twice as fine.

    Returns:
        Float32, ``(B, side, side)``, periodic, from 0 to 1.
    """
    heights = draws.uniform(side, side, low=-1, high=1)
    heights[:, 0, 0] = 0
    step, roughness = side, 1.0
    while step >= 2:
        half = step // 2
        corners, centres = heights[:, ::step, ::step], heights[:, half::step, half::step]
        pairs = corners + corners.roll(-1, 1)
        centres.mul_(roughness).add_(pairs + pairs.roll(-1, 2), alpha=0.25)
        above = (centres + centres.roll(1, 1)).add_(corners).add_(corners.roll(-1, 2))
        heights[:, ::step, half::step].mul_(roughness).add_(above, alpha=0.25)
        beside = (centres + centres.roll(1, 2)).add_(pairs)
        heights[:, half::step, ::step].mul_(roughness).add_(beside, alpha=0.25)
        step, roughness = half, roughness / decay**2
    heights -= heights.amin((1, 2), keepdim=True)
    return heights.div_(heights.amax((1, 2), keepdim=True))
