"""Images cut into patches."""

import torch.nn.functional as F
from torch import Tensor

from tta.errors import InputError


def shuffled_patches(images: Tensor, orders: Tensor) -> Tensor:
    """Cut every image into a grid of equal patches and put them together in another order.

    Where the sides are no multiples of the grid's, images are resized to the next smaller multiples and back, each side
    by itself.

    Args:
        images: Shape ``(B, C, H, W)``, floating point, of any range.
        orders: Which patch comes to each place, row by row, shape ``(B, G * G)``, int64, every row a permutation; ``G``
            is the number of patches along a side.

    Returns:
        Images of the same shape.

    Raises:
        InputError: If the images have another number of axes.
    """
    if images.dim() != 4:
        raise InputError(f"images of shape {tuple(images.shape)} have no patches: give images of shape (B, C, H, W)")
    batch, channels, height, width = images.shape
    grid = round(orders.shape[1] ** 0.5)
    high, wide = max(height // grid, 1), max(width // grid, 1)
    cut = _resized(images, high * grid, wide * grid).reshape(batch, channels, grid, high, grid, wide)
    patches = cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, grid * grid, channels, high, wide)
    patches = patches.gather(1, orders.view(batch, grid * grid, 1, 1, 1).expand_as(patches))
    joined = patches.view(batch, grid, grid, channels, high, wide).permute(0, 3, 1, 4, 2, 5)
    return _resized(joined.reshape(batch, channels, grid * high, grid * wide), height, width)


def _resized(images: Tensor, height: int, width: int) -> Tensor:
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode="bilinear", antialias=True)
