"""Light augmentations of source training, each decided by a generator alone."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F


def small_affine(image: Tensor, generator: torch.Generator) -> Tensor:
    """Augment by a small rotation, shift and change of scale.

    Args:
        image: Shape ``(C, H, W)``, floating, in [0, 1].
        generator: Decides the transformation.

    Returns:
        Same shape and dtype.
    """
    angle, right, down, scale = (2 * torch.rand(4, generator=generator) - 1).tolist()
    shift = [round(right * image.shape[-1] / 16), round(down * image.shape[-2] / 16)]
    moved: Tensor = F.affine(image, 10 * angle, shift, 1 + 0.1 * scale, [0.0, 0.0], InterpolationMode.BILINEAR)
    return moved


def crop_and_flip(image: Tensor, generator: torch.Generator) -> Tensor:
    """Augment by padding an eighth with mirrored pixels, cropping the original size, and flipping every other image.

    Args:
        image: Shape ``(C, H, W)``, floating, in [0, 1].
        generator: Decides the crop and the flip.

    Returns:
        Same shape and dtype.
    """
    height, width = image.shape[-2:]
    margin = min(height, width) // 8
    top, left, flip = torch.rand(3, generator=generator).tolist()
    padded = F.pad(image, [margin], padding_mode="reflect")
    cropped: Tensor = F.crop(padded, int(top * (2 * margin + 1)), int(left * (2 * margin + 1)), height, width)
    return cropped.flip(-1) if flip < 0.5 else cropped
