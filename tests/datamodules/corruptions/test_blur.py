import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.corruptions import CORRUPTIONS, LEVELS, Draws
from datamodules.corruptions.blur import correlate, correlate_by_fourier, disk, drag, gaussian_window, move_sources

SIDE = 25


@pytest.fixture
def point():
    image = torch.zeros(1, 1, SIDE, SIDE)
    image[..., SIDE // 2, SIDE // 2] = 1
    return image


def blurred(name, images, *parameters):
    return CORRUPTIONS[name](images, Draws(range(len(images))), *parameters)


def moved_one_by_one(image, moves, reach):
    """The published loop over pixels, on an array ``(H, W)``."""
    height, width = image.shape
    for row in range(height - reach, reach, -1):
        for column in range(width - reach, reach, -1):
            down, right = moves[:, row, column]
            image[row, column] = image[row + down, column + right]
    return image


@given(st.integers(1, 4), st.integers(8, 15), st.integers(8, 15), st.integers(0, 10**6))
def test_moves_of_all_pixels_at_once_equal_those_one_by_one(reach, height, width, seed):
    moves = np.random.default_rng(seed).integers(-reach, reach, (2, 2, height, width))
    sources = move_sources(torch.from_numpy(moves), reach)
    for own, move in zip(sources, moves, strict=True):
        expected = moved_one_by_one(np.arange(height * width).reshape(height, width), move, reach)
        np.testing.assert_array_equal(own.view(height, width), expected)


def test_glass_blur_repeats_the_moves(images):
    still, once, twice = (blurred("glass_blur", images, 0.1, 2, iterations) for iterations in (0, 1, 2))
    torch.testing.assert_close(still, images)
    assert set(once[0, 0].unique().tolist()) <= set(images[0, 0].unique().tolist())
    assert (once != images).float().mean() < (twice != images).float().mean()


def test_glass_blur_moves_all_channels_together(images):
    grey = images[:, :1].expand(-1, 3, -1, -1)
    shown = blurred("glass_blur", grey, 0.1, 3, 2)
    assert torch.equal(shown[:, 0], shown[:, 2])


@pytest.mark.parametrize("sigma", [0.05, 0.4, 1, 2.5])
def test_gaussian_blur_of_a_point_is_the_gaussian(point, sigma):
    offsets = torch.arange(SIDE) - SIDE // 2
    window = torch.exp(-(offsets**2) / (2 * sigma**2)) * (offsets.abs() <= int(4 * sigma + 0.5))
    expected = torch.outer(window, window) / window.sum() ** 2
    torch.testing.assert_close(blurred("gaussian_blur", point, sigma)[0, 0], expected)


def test_the_border_of_a_gaussian_blur_repeats_the_outermost_pixel():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8) / 7
    window = gaussian_window(1, 4)
    expected = sum(window[offset + 4] * max(offset, 0) / 7 for offset in range(-4, 5))
    assert blurred("gaussian_blur", ramp, 1)[0, 0, 3, 0] == pytest.approx(expected.item(), abs=1e-6)


def test_a_disk_without_smoothing_is_a_flat_disk():
    kernel = disk(3, 0.01)
    assert kernel.shape == (7, 7)
    assert (kernel > 0).sum() == 29
    torch.testing.assert_close(kernel[kernel > 0], torch.full((29,), 1 / 29))


@pytest.mark.parametrize("levels", ["32", "64", "224"])
def test_disks_keep_the_brightness(levels):
    for radius, alias_blur in LEVELS[levels]["defocus_blur"]:
        assert disk(radius, alias_blur).sum().item() == pytest.approx(1, abs=0.015)


def test_the_border_of_a_defocus_blur_is_mirrored():
    row = torch.arange(8.0) / 7
    result = blurred("defocus_blur", row.expand(1, 1, 8, 8), 1, 0.01)[0, 0, 3]
    assert result[0].item() == pytest.approx((1 / 7 + 1 / 7) / 5, abs=1e-6)


def test_a_disk_larger_than_the_image_is_mirrored_more_than_once():
    result = blurred("defocus_blur", torch.full((1, 3, 8, 9), 0.25), 10, 0.5)
    torch.testing.assert_close(result, torch.full((1, 3, 8, 9), 0.25 * disk(10, 0.5).sum().item()))


def test_correlate_is_the_sum_of_products(images):
    kernel = torch.rand(3, 2, generator=torch.Generator().manual_seed(0))
    expected = (images[:, :, 4:7, 9:11] * kernel).sum((-2, -1))
    torch.testing.assert_close(correlate(images, kernel)[:, :, 4, 9], expected)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(9, 41), st.integers(9, 41))
def test_correlating_by_fourier_transforms_is_the_same(rows, columns, height, width):
    generator = torch.Generator().manual_seed(rows + 10 * columns)
    images, kernel = (torch.rand(shape, generator=generator) for shape in ((2, 3, height, width), (rows, columns)))
    torch.testing.assert_close(correlate_by_fourier(images, kernel), correlate(images, kernel), rtol=1e-5, atol=1e-5)


def test_a_large_disk_blurs_an_image_the_same_in_any_batch(images):
    many = images.expand(5, *images.shape[1:]) if len(images) == 1 else images
    together = blurred("defocus_blur", many, 10, 0.5)
    assert torch.equal(together[1:2], blurred("defocus_blur", many[1:2], 10, 0.5))


def test_dragging_to_the_right_weights_what_lies_right(point):
    row = drag(point, torch.zeros(1), 3, 2)[0, 0, SIDE // 2]
    weights = torch.tensor([math.exp(-(tap**2) / 8) for tap in range(7)])
    torch.testing.assert_close(row[SIDE // 2 - 6 : SIDE // 2 + 1].flip(0), weights / weights.sum())
    assert row[SIDE // 2 + 1 :].sum() == 0


@pytest.mark.parametrize(("angle", "down", "right"), [(0, 0, 1), (90, 1, 0), (-90, -1, 0), (45, 1, 1), (180, 0, -1)])
def test_each_image_is_dragged_in_its_own_direction(point, angle, down, right):
    pair = drag(point.expand(2, 1, SIDE, SIDE), torch.tensor([angle, 0.0]), 3, 2)
    assert pair[0, 0, SIDE // 2 - down, SIDE // 2 - right] > 0.1
    assert torch.equal(pair[1:], drag(point, torch.zeros(1), 3, 2))


def test_motion_blur_stays_within_45_degrees_of_the_horizontal(point):
    streaks = blurred("motion_blur", point.expand(64, 1, SIDE, SIDE), 5, 8)
    taken = streaks.flatten(1).gt(0).nonzero()[:, 1]
    down, right = SIDE // 2 - taken // SIDE, SIDE // 2 - taken % SIDE
    assert (right >= down.abs() - 1).all()
    assert (down > 3).any()
    assert (down < -3).any()


@pytest.mark.parametrize("levels", ["32", "64", "224"])
@pytest.mark.parametrize("name", ["gaussian_blur", "defocus_blur", "motion_blur", "zoom_blur", "glass_blur"])
def test_blurs_leave_a_flat_image_as_it_is(name, levels):
    flat = torch.full((2, 3, 48, 40), 0.3)
    for row in LEVELS[levels][name]:
        parameters = row if isinstance(row, tuple) else (row,)
        torch.testing.assert_close(blurred(name, flat, *parameters), flat, atol=0.005, rtol=0)


def test_zoom_blur_averages_the_enlarged_centre():
    ramp = torch.arange(9.0).expand(1, 1, 9, 9) / 8
    # Factor 1.5: the six columns from the second on (positions 1 to 6), spread evenly over nine.
    enlarged = torch.linspace(1, 6, 9) / 8
    result = blurred("zoom_blur", ramp, 1.5, 2)[0, 0, 4]
    torch.testing.assert_close(result, (2 * ramp[0, 0, 4] + enlarged) / 3)
