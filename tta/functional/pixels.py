"""Whether images are made of numbers."""

import torch
from torch import Tensor


def finite_samples(x: Tensor) -> Tensor:
    """Which samples have only finite pixels.

    Args:
        x: Images, shape ``(B, ...)``.

    Returns:
        Shape ``(B,)``, bool.
    """
    # A sum is not finite where a pixel is not. Where one overflows, pixels are looked at one by one.
    finite = torch.isfinite(x.flatten(1).sum(dim=1))
    return finite if bool(finite.all()) else torch.isfinite(x).flatten(1).all(dim=1)
