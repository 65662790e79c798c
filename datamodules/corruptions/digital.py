"""What cameras, screens and files do to the values of an image."""

import io
import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datamodules.corruptions.draws import Draws
from datamodules.corruptions.registry import corruption


@corruption
def contrast(images: Tensor, draws: Draws, factor: float) -> Tensor:
    """Pull every channel towards its mean, leaving ``factor`` of the differences."""
    means = images.mean((-2, -1), keepdim=True)
    return torch.lerp(means, images, factor)


@corruption
def brightness(images: Tensor, draws: Draws, amount: float) -> Tensor:
    """Add to the value of every pixel, in the sense of HSV, until it saturates; hue and saturation stay."""
    value = images.amax(1, keepdim=True)
    brighter = (value + amount).clamp_(max=1)
    return torch.where(value > 0, images * (brighter / value), brighter)


@corruption
def saturate(images: Tensor, draws: Draws, factor: float, offset: float) -> Tensor:
    """Multiply and shift every pixel's saturation, in the sense of HSV; grey images stay as they are.

    Grey pixels have hue 0 by convention, so that a positive offset turns them red.
    """
    if images.shape[1] == 1:
        return images.clone()
    value = images.amax(1, keepdim=True)
    spread = value - images.amin(1, keepdim=True)
    saturation = (spread / value * factor + offset).clamp_(0, 1)
    below = torch.where(spread > 0, (value - images) / spread, _below_red(images.device))
    return torch.where(value > 0, value * (1 - saturation * below), images)


def _below_red(device: torch.device) -> Tensor:
    return torch.tensor([0.0, 1.0, 1.0], device=device).view(3, 1, 1)


@corruption
def pixelate(images: Tensor, draws: Draws, scale: float) -> Tensor:
    """Show the image in fewer, larger pixels: averages over boxes, ``scale`` times as many along each side."""
    height, width = images.shape[-2:]
    small = _box_averages(_box_averages(images, -2, int(height * scale)), -1, int(width * scale))
    return _enlarge(_enlarge(small, -1, width), -2, height)


@corruption
def jpeg_compression(images: Tensor, draws: Draws, quality: float) -> Tensor:
    """Write and read a JPEG file; the quality is rounded."""
    planes = images.mul(255).add_(0.5).cpu().numpy().astype(np.uint8)  # many times faster than torch's cast
    decoded = np.stack([_through_jpeg(image, round(quality)) for image in planes])
    pixels = torch.from_numpy(decoded).reshape(*decoded.shape[:3], -1).movedim(-1, 1)
    return pixels.to(images.device, torch.float32, memory_format=torch.contiguous_format).div_(255)


def _through_jpeg(planes: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    bands = [Image.fromarray(plane) for plane in planes]
    file = io.BytesIO()
    (bands[0] if len(bands) == 1 else Image.merge("RGB", bands)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _box_averages(images: Tensor, dim: int, count: int) -> Tensor:
    side = images.shape[dim]
    edges = (torch.arange(count + 1, dtype=torch.float64) * (side / count) + 0.5).long().to(images.device)
    sizes = edges.diff()
    across = (-1, 1) if dim == -2 else (-1,)
    total = _take(images, dim, edges[:-1])
    for place in range(1, math.ceil(side / count)):
        present = (place < sizes).float().view(across)
        total += _take(images, dim, (edges[:-1] + place).clamp_(max=side - 1)).mul_(present)
    return total.div_(sizes.view(across))


def _enlarge(images: Tensor, dim: int, side: int) -> Tensor:
    centres = 2 * torch.arange(side, device=images.device) + 1
    return _take(images, dim, centres * images.shape[dim] // (2 * side))


def _take(images: Tensor, dim: int, positions: Tensor) -> Tensor:
    if dim == -2:
        return torch.index_select(images, dim, positions)
    # Along rows, which are not contiguous pieces, this is many times faster than index_select.
    return images.gather(dim, positions.expand(*images.shape[:-1], -1))
