"""Patches: where they go, and images that the grid does not divide."""

import pytest
import torch

import tta
from tta.functional import shuffled_patches

IMAGE = torch.arange(16.0).view(1, 1, 4, 4)


def test_four_patches_by_hand():
    """Top right, bottom right, top left, bottom left."""
    expected = torch.tensor([[2.0, 3, 10, 11], [6, 7, 14, 15], [0, 1, 8, 9], [4, 5, 12, 13]])
    assert torch.equal(shuffled_patches(IMAGE, torch.tensor([[1, 3, 0, 2]]))[0, 0], expected)


def test_every_image_has_its_order_and_channels_stay_together():
    images = torch.rand(3, 2, 8, 12)
    orders = torch.rand(3, 16).argsort(dim=1)
    orders[1] = torch.arange(16)
    shuffled = shuffled_patches(images, orders)
    assert torch.equal(shuffled[1], images[1])
    for image, order, result in zip(images, orders, shuffled, strict=True):
        for place, patch in enumerate(order.tolist()):
            (row, column), (r, c) = divmod(place, 4), divmod(patch, 4)
            got = result[:, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
            assert torch.equal(got, image[:, 2 * r : 2 * r + 2, 3 * c : 3 * c + 3])


@pytest.mark.parametrize("size", [(9, 14), (3, 5)])
def test_other_sizes_come_back_in_their_size(size):
    images = torch.rand(2, 3, *size)
    shuffled = shuffled_patches(images, torch.arange(15, -1, -1).repeat(2, 1))
    assert shuffled.shape == images.shape
    assert shuffled.isfinite().all()
    assert not torch.equal(shuffled, images)


def test_what_is_no_image_is_refused():
    with pytest.raises(tta.InputError, match=r"images of shape \(4, 5\) have no patches: give .* \(B, C, H, W\)"):
        shuffled_patches(torch.rand(4, 5), torch.arange(16).repeat(4, 1))
