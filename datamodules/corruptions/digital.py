"""What cameras, screens and files do to the values of an image."""

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

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
    rows = _average_boxes(images, int(height * scale))
    columns = _average_boxes(rows.mT, int(width * scale))
    return _enlarge(_enlarge(columns, width).mT.contiguous(), height)


@corruption
def jpeg_compression(images: Tensor, draws: Draws, quality: float) -> Tensor:
    """Write and read a JPEG file; the quality is rounded."""
    # NumPy casts several times faster than torch; torchvision's codec is faster than Pillow's, but deprecated.
    planes = torch.add(torch.tensor(0.5), images.cpu(), alpha=255).numpy().astype(np.uint8)
    decoded = np.stack([_through_jpeg(image, round(quality)) for image in planes])
    pixels = torch.from_numpy(decoded).reshape(*decoded.shape[:3], -1).movedim(-1, 1)
    return pixels.to(images.device, torch.float32, memory_format=torch.contiguous_format).div_(255)


def _through_jpeg(planes: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    bands = [Image.fromarray(plane) for plane in planes]
    file = io.BytesIO()
    (bands[0] if len(bands) == 1 else Image.merge("RGB", bands)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _average_boxes(images: Tensor, count: int) -> Tensor:
    """Average neighbouring rows, so that ``count`` are left."""
    side, width = images.shape[-2:]
    edges = (torch.arange(count + 1, dtype=torch.float64) * (side / count) + 0.5).long().to(images.device)
    rows = torch.arange(images.numel() // width, device=images.device)
    starts = rows[::side, None] + edges[:-1]
    totals = F.embedding_bag(rows, images.reshape(-1, width), starts.flatten(), mode="sum")
    return totals.view(*images.shape[:-2], count, width).div_(edges.diff()[:, None])


def _enlarge(images: Tensor, side: int) -> Tensor:
    """Repeat rows, so that there are ``side``."""
    centres = 2 * torch.arange(side, device=images.device) + 1
    return images.index_select(-2, centres * images.shape[-2] // (2 * side))
