"""The held-out share of a source data set, the same in source training and in the stream."""

import numpy as np
from numpy.typing import NDArray

from datamodules.checks import check_at_least
from datamodules.datasets import ImageData, ImageSubset
from datamodules.samplers import stratified_split
from tta.errors import InputError


def check_split(val_share: float, split_seed: int) -> None:
    """Refuse a split that cannot be made.

    Args:
        val_share: Share to hold out, between 0 and 1.
        split_seed: Non-negative.

    Raises:
        InputError: If one of them is out of range.
    """
    check_at_least(split_seed, 0, "split_seed", "use a non-negative number")
    if not 0 < val_share < 1:
        raise InputError(f"val_share: {val_share} is not between 0 and 1; 0.1 holds out every tenth image.")


def hold_out(
    data: ImageData, share: float, seed: int, groups: NDArray[np.integer] | None = None
) -> tuple[ImageSubset, ImageSubset]:
    """Split off images for validation.

    Args:
        data: The whole.
        share: Share to hold out, between 0 and 1.
        seed: Non-negative.
        groups: Group of every image, integers, shape ``(N,)``: the share is taken of each; the classes if ``None``.

    Returns:
        The images to train on and the held-out ones.
    """
    strata = data.labels if groups is None else groups.astype(np.int64)
    train, heldout = stratified_split(strata, (1 - share, share), seed)
    return ImageSubset(data, train), ImageSubset(data, heldout)
