"""Many AugMix views of images at once, as MEMO takes them."""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from tta.adapters.views import PaddedCrop
from tta.errors import InputError

CHAINS = 3
"""Chains that are mixed."""
DEPTH = 3
"""Longest chain."""
GREY = 128 / 255
"""What appears behind a moved image."""

Operation = Callable[[Tensor, Tensor], Tensor]
"""From images ``(N, C, H, W)`` in ``[0, 1]`` and levels ``(N,)`` to images of the same shape."""


class AugMixViews(nn.Module):
    """The published views of MEMO: a random crop and flip, then a mixture of three chains of small changes.

    A chain is one to three of: auto-contrast, equalise, posterise, solarise, rotate, shear and shift in x or y, each
    with a level drawn from ``U(0.1, 1)`` of ten (severity 1 of AugMix). Chains are mixed by a Dirichlet(1, 1, 1) draw,
    and the mixture with the cropped image by a uniform one. Everything is drawn on the CPU from torch's global
    generator, so a seed gives the same views on every device.

    Differs from the authors' code in arithmetic alone, theirs rounds to 8 bits after each change, and in what appears
    behind a moved image: grey in all channels here, while their fill of 128 is a dark red, (128, 0, 0), to Pillow.
    torchvision's ``v2.AugMix`` has coarser levels (at severity 1 it moves nothing) and changes one image at a time,
    which on images of 32 pixels takes about four times as long.

    Args:
        crop: ``padded`` cuts the image's own size out of a black border of 4 pixels, as published for CIFAR;
            ``resized`` shows a random part of 8 to 100 % at its own size or ``size``, as published for ImageNet.
        size: Side of ``resized`` views in pixels; the image's own height and width by default.

    Raises:
        InputError: For another crop, or a size with ``padded``.

    References:
        AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty, ICLR 2020,
        https://arxiv.org/abs/1912.02781, and the code of MEMO (commit 228b290).
    """

    def __init__(self, crop: Literal["padded", "resized"] = "padded", size: int | None = None) -> None:
        super().__init__()
        if crop not in ("padded", "resized") or (size is not None and (crop == "padded" or size < 1)):
            raise InputError(
                f"crop={crop!r}, size={size}: crop is padded or resized, and only resized takes a size > 0"
            )
        self.crop = crop
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """One view of each image.

        Args:
            images: Shape ``(N, C, H, W)`` or ``(C, H, W)``, in ``[0, 1]``, ``C`` 1 or 3.

        Returns:
            Views of the same number of dimensions, in ``[0, 1]``.
        """
        if images.dim() == 3:
            view: Tensor = self(images.unsqueeze(0)).squeeze(0)
            return view
        cut = self._crop(images.shape[-2:])
        cropped = torch.stack([cut(image) for image in images])
        flipped = torch.where(_uniform(len(images)).to(images.device) < 0.5, cropped.flip(-1), cropped)
        return _augmented(flipped.clamp(0.0, 1.0))

    def _crop(self, shape: torch.Size) -> nn.Module:
        if self.crop == "padded":
            return PaddedCrop(4)
        side = tuple(shape) if self.size is None else (self.size, self.size)
        crop: nn.Module = v2.RandomResizedCrop(side, antialias=True)
        return crop


def _uniform(count: int) -> Tensor:
    return torch.rand(count, 1, 1, 1)


def _augmented(images: Tensor) -> Tensor:
    count = len(images)
    exponentials = -torch.log1p(-torch.rand(CHAINS, count, 1, 1, 1))
    shares = (exponentials / exponentials.sum(dim=0)).to(images.device)
    kept = _uniform(count).to(images.device)
    chains = _chains(images.repeat(CHAINS, 1, 1, 1)).view(CHAINS, *images.shape)
    return kept * images + (1.0 - kept) * (shares * chains).sum(dim=0)


def _chains(images: Tensor) -> Tensor:
    """Change every image, in place, by one to three random operations; those that get the same one go together."""
    count = len(images)
    depth = torch.randint(1, DEPTH + 1, (count,))
    for step in range(DEPTH):
        chosen = torch.randint(len(OPERATIONS), (count,)).masked_fill(depth <= step, -1)
        level = 0.1 + 0.9 * torch.rand(count)
        sign = torch.where(torch.rand(count) > 0.5, -1.0, 1.0)
        for number, operation in enumerate(OPERATIONS):
            rows = (chosen == number).nonzero().flatten()
            if len(rows):
                levels = (level * sign if operation in SIGNED else level)[rows].to(images.device)
                rows = rows.to(images.device)
                images[rows] = operation(images[rows], levels)
    return images


def autocontrast(images: Tensor, levels: Tensor) -> Tensor:
    """Stretch every channel to ``[0, 1]``; one of a single value stays."""
    changed: Tensor = v2.functional.autocontrast(images)
    return changed


def equalize(images: Tensor, levels: Tensor) -> Tensor:
    """Make the histogram of every channel flat, in 8 bits."""
    changed: Tensor = v2.functional.equalize(images)
    return changed


def posterize(images: Tensor, levels: Tensor) -> Tensor:
    """Keep 4 bits: all levels of severity 1 round to that."""
    changed: Tensor = v2.functional.posterize(images, 4)
    return changed


def solarize(images: Tensor, levels: Tensor) -> Tensor:
    """Invert what is brighter than ``256 - 25.6 level`` of 256."""
    threshold = (256.0 - (25.6 * levels).floor()) / 255.0
    return torch.where(images >= threshold.view(-1, 1, 1, 1), 1.0 - images, images)


def rotate(images: Tensor, levels: Tensor) -> Tensor:
    """Rotate about the centre by up to 3 degrees, whole ones."""
    angles = (3.0 * levels.abs()).floor() * levels.sign() * (math.pi / 180.0)
    cos, sin = angles.cos(), angles.sin()
    middle_x, middle_y = images.shape[-1] / 2, images.shape[-2] / 2
    shift_x = middle_x - cos * middle_x + sin * middle_y
    shift_y = middle_y - sin * middle_x - cos * middle_y
    return _moved(images, (cos, -sin, shift_x), (sin, cos, shift_y))


def shear_x(images: Tensor, levels: Tensor) -> Tensor:
    """Shear along x by up to 0.03."""
    one, zero = torch.ones_like(levels), torch.zeros_like(levels)
    return _moved(images, (one, 0.03 * levels, zero), (zero, one, zero))


def shear_y(images: Tensor, levels: Tensor) -> Tensor:
    """Shear along y by up to 0.03."""
    one, zero = torch.ones_like(levels), torch.zeros_like(levels)
    return _moved(images, (one, zero, zero), (0.03 * levels, one, zero))


def translate_x(images: Tensor, levels: Tensor) -> Tensor:
    """Shift along x by up to a thirtieth of the width, whole pixels."""
    one, zero = torch.ones_like(levels), torch.zeros_like(levels)
    pixels = (levels.abs() * images.shape[-1] / 30).floor() * levels.sign()
    return _moved(images, (one, zero, pixels), (zero, one, zero))


def translate_y(images: Tensor, levels: Tensor) -> Tensor:
    """Shift along y by up to a thirtieth of the height, whole pixels."""
    one, zero = torch.ones_like(levels), torch.zeros_like(levels)
    pixels = (levels.abs() * images.shape[-2] / 30).floor() * levels.sign()
    return _moved(images, (one, zero, zero), (zero, one, pixels))


OPERATIONS: tuple[Operation, ...] = (
    autocontrast,
    equalize,
    posterize,
    solarize,
    rotate,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
)
SIGNED: tuple[Operation, ...] = (rotate, shear_x, shear_y, translate_x, translate_y)
"""Those that go either way."""

Row = tuple[Tensor, Tensor, Tensor]


def _moved(images: Tensor, x_row: Row, y_row: Row) -> Tensor:
    """Images whose pixel at (x, y) is that at (a x + b y + c, d x + e y + f), in pixels from the upper left corner."""
    height, width = images.shape[-2:]
    (a, b, c), (d, e, f) = x_row, y_row
    # The same map between coordinates that go from -1 to 1.
    ratio = height / width
    own_x = torch.stack([a, b * ratio, a + b * ratio + 2.0 * c / width - 1.0], dim=1)
    own_y = torch.stack([d / ratio, e, d / ratio + e + 2.0 * f / height - 1.0], dim=1)
    grid = F.affine_grid(torch.stack([own_x, own_y], dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images - GREY, grid, align_corners=False) + GREY
