"""Random views of a batch."""

import pickle

import pytest
import torch
from torch import Tensor

from tta.adapters.views import (
    ColoursAndGamma,
    CoTTAViews,
    ImageNetViews,
    MovedOverEdges,
    PaddedCrop,
    ROIDViews,
    SmallImageViews,
    random_views,
)

IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("views", "side"),
    [(SmallImageViews(), 16), (ImageNetViews(24), 24), (CoTTAViews(), 16), (ROIDViews(), 16)],
)
def test_views_are_images_that_differ(views, side):
    first, second = random_views(IMAGES, views, (0, 0))
    for view in (first, second):
        assert view.shape == (6, 3, side, side)
        assert view.min() >= 0
        assert view.max() <= 1
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_draws_come_from_the_seed_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    one = random_views(IMAGES, SmallImageViews(), (3, 1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    again = random_views(IMAGES, pickle.loads(pickle.dumps(SmallImageViews())), (3, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    for other in ((3, 2), (4, 1)):
        assert not torch.equal(one[0], random_views(IMAGES, SmallImageViews(), other)[0])


def test_every_image_has_its_own_draw():
    same = IMAGES[:1].expand(6, -1, -1, -1)
    view = random_views(same, SmallImageViews(), (0,))[0]
    assert len({tuple(image.flatten().tolist()) for image in view}) == 6


def brighten(image: Tensor) -> Tensor:
    return image + torch.rand(()) * 2


def test_any_callable_will_do_and_its_results_are_clamped():
    first, second = random_views(IMAGES, brighten, (0,))
    shifts = [(view - IMAGES)[view < 1] for view in (first, second)]
    assert first.max() == 1
    assert not torch.equal(first, second)
    assert all((shift > 0).all() for shift in shifts)


@pytest.mark.parametrize("count", [1, 4])
def test_number_of_views(count):
    assert len(random_views(IMAGES, SmallImageViews(), (0,), count)) == count


def test_crop_shows_the_image_shifted_over_black():
    ones = torch.ones(1, 8, 8)
    torch.manual_seed(0)
    crops = torch.stack([PaddedCrop(4)(ones) for _ in range(200)])
    assert crops.shape == (200, 1, 8, 8)
    rows, columns = crops[:, 0].any(dim=2).sum(dim=1), crops[:, 0].any(dim=1).sum(dim=1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 8, 4, 8)


def test_blur_is_not_rounded_under_autocast():
    plain = random_views(IMAGES, SmallImageViews(), (0,))
    with torch.autocast("cpu", torch.bfloat16):
        cast = random_views(IMAGES, SmallImageViews(), (0,))
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


@pytest.mark.parametrize("views", [SmallImageViews(), CoTTAViews()])
def test_images_of_one_channel_and_of_unequal_sides(views):
    view = random_views(IMAGES[:, :1, :12], views, (1,))[0]
    assert view.shape == (6, 1, 12, 16)


def test_views_of_cotta_on_a_grey_image_are_of_one_grey_but_for_the_noise():
    """The move shows no border, and grey has no hue or saturation to change."""
    grey = torch.full((60, 3, 16, 16), 0.5)
    view = random_views(grey, CoTTAViews(), (0,))[0].flatten(1)
    assert view.std(dim=1).mean() == pytest.approx(0.005, rel=0.05)
    means = view.mean(dim=1)
    # Brightness and contrast leave 0.5 * [0.6, 1.4]; the power of gamma is in [0.7, 1.3].
    assert 0.3**1.3 < means.min() < 0.35
    assert 0.6 < means.max() < 0.7**0.7


def test_views_of_roid_have_neither_noise_nor_border_and_mirror_what_lies_beyond():
    view = random_views(torch.full((20, 3, 16, 16), 0.5), ROIDViews(), (0,))[0].flatten(1)
    assert view.std(dim=1).max() < 1e-3
    assert view.mean(dim=1).std() > 0.05
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 32).expand(1, 32, 32)
    shift_only = MovedOverEdges(degrees=0.0, shift=1 / 16, scale=(1.0, 1.0), blur=None, padding="reflect")
    moved = torch.stack([shift_only(ramp)[0] for _ in range(100)])
    shifts = ((moved[:, 16, 16] - ramp[0, 16, 16]) * 31).round()
    expected = torch.cat([ramp[0, 0, 4:], ramp[0, 0, -5:-1].flip(0)])
    torch.testing.assert_close(moved[shifts == 4][:, 0], expected.expand(int((shifts == 4).sum()), 32))


def test_strengths_of_colours():
    torch.manual_seed(0)
    still = ColoursAndGamma(0.0, 0.0, 0.0, 0.0, 0.0)(IMAGES[0])
    torch.testing.assert_close(still, IMAGES[0], atol=1e-5, rtol=0.0)
    grey = torch.full((3, 4, 4), 0.5)
    brighter = torch.stack([ColoursAndGamma(0.4, 0.0, 0.0, 0.0, 0.0)(grey).mean() for _ in range(200)])
    assert 0.3 <= brighter.min() < 0.31
    assert 0.69 < brighter.max() <= 0.7
    darker = torch.stack([ColoursAndGamma(0.0, 0.0, 0.0, 0.0, 0.3)(grey).mean() for _ in range(200)])
    assert 0.5**1.3 <= darker.min() < 0.5**1.28
    assert 0.5**0.72 < darker.max() <= 0.5**0.7


def test_move_shifts_by_at_most_an_eighth_and_repeats_the_edges():
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 32).expand(1, 32, 32)
    shift_only = MovedOverEdges(degrees=0.0, shift=1 / 16, scale=(1.0, 1.0), blur=(0.001, 0.0011))
    moved = torch.stack([shift_only(ramp)[0] for _ in range(100)])
    shifts = ((moved[:, 16, 16] - ramp[0, 16, 16]) * 31).round()
    assert (shifts.min(), shifts.max()) == (-4, 4)
    assert moved.amin() >= 0
    assert (moved[shifts == 4][:, :, -5:] == 1).all()
