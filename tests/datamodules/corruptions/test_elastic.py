import pytest
import torch

from datamodules.corruptions import Draws
from datamodules.corruptions.elastic import elastic_transform


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", ["32", "64", "224"])
def test_any_size_channels_and_levels(levels, channels, smooth_images, apply):
    images = smooth_images(2, channels, 9, 40)
    for severity in (0.5, 1, 2.5, 5):
        corrupted = apply(images, f"elastic_transform:{severity}", levels)
        assert corrupted.shape == images.shape
        assert 0 <= corrupted.min() <= corrupted.max() <= 1


def test_no_displacement_leaves_the_image(smooth_images):
    images = smooth_images(3, 3, 20, 24)
    moved = elastic_transform(images, Draws([1, 2, 3]), alpha=0, sigma=0, displacement=0)
    assert torch.allclose(moved, images, atol=1e-4)


def test_a_constant_image_stays(apply):
    images = torch.full((2, 3, 32, 32), 0.25)
    assert torch.allclose(apply(images, "elastic_transform:5"), images, atol=1e-6)


def test_values_stay_within_those_of_the_image(smooth_images, apply):
    images = smooth_images(4) * 0.5 + 0.2
    moved = apply(images, "elastic_transform:4")
    assert images.min() - 1e-6 <= moved.min()
    assert moved.max() <= images.max() + 1e-6


def test_an_affine_map_keeps_a_ramp_a_ramp(apply):
    ramp = torch.linspace(0.2, 0.8, 96).expand(8, 1, 96, 96).contiguous()
    moved = apply(ramp, "elastic_transform:1", "32")[..., 32:64, 32:64]  # at this level there is no field
    assert moved.diff(n=2, dim=3).abs().max() < 1e-4
    assert moved.diff(n=2, dim=2).abs().max() < 1e-4
    assert moved.diff(dim=2).abs().max() > 1e-4


def test_the_field_moves_neighbours_alike():
    ramp = torch.linspace(0, 1, 64).expand(4, 1, 64, 64).contiguous()
    moved = elastic_transform(ramp, Draws(range(4)), alpha=20, sigma=4, displacement=0) - ramp
    inside = moved[..., 16:-16, 16:-16]
    assert inside.std() > 0.005
    assert inside.diff(dim=2).std() < 0.4 * inside.std()


def test_a_window_wider_than_the_image(smooth_images):
    images = smooth_images(2, 3, 16, 16)
    moved = elastic_transform(images, Draws([1, 2]), alpha=100, sigma=60, displacement=0)
    assert moved.isfinite().all()
