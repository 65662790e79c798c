import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from datamodules.corruptions import CORRUPTIONS, Draws


def shown(name, images, *parameters):
    return CORRUPTIONS[name](images, Draws(range(len(images))), *parameters)


@pytest.mark.parametrize(("height", "width", "side"), [(32, 32, 16), (64, 80, 32), (8, 8, 4)])
def test_occlusion_covers_a_square_of_the_documented_size(height, width, side):
    covered = shown("occlusion", torch.zeros(5, 3, height, width), 16) == 0.5
    assert (covered.sum((1, 2, 3)) == 3 * side * side).all()
    assert torch.equal(covered[:, 0], covered[:, 2])


def test_occlusion_comes_everywhere():
    covered = shown("occlusion", torch.zeros(256, 1, 8, 8), 16) == 0.5
    assert covered.any(0).all()
    assert len({mask.numpy().tobytes() for mask in covered}) == 25


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 33)])
def test_affine_turns_and_shears_to_either_side(smooth_images, height, width):
    image = smooth_images(1, 3, height, width)
    results = shown("affine", image.expand(24, -1, -1, -1), 24, 12)
    expected = [
        F.affine(image[0], turn, [0, 0], 1.0, [slant, 0.0], InterpolationMode.BILINEAR)
        for turn in (-24, 24)
        for slant in (-12, 12)
    ]
    nearest = [min(range(4), key=lambda k, own=own: (own - expected[k]).abs().mean().item()) for own in results]
    assert set(nearest) == {0, 1, 2, 3}
    for own, kind in zip(results, nearest, strict=True):
        torch.testing.assert_close(own, expected[kind], atol=1e-4, rtol=0)


def test_invert_turns_bright_values_and_dims_all():
    image = torch.tensor([0.0, 0.5, 0.8, 1.0]).view(1, 1, 1, 4)
    torch.testing.assert_close(shown("invert", image, 0.8, 0.9).flatten(), torch.tensor([0.0, 0.45, 0.18, 0.0]))
