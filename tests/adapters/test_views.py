"""Random views of a batch."""

import pickle

import pytest
import torch
from torch import Tensor

from tta.adapters.views import ImageNetViews, PaddedCrop, SmallImageViews, random_views

IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("views", "side"), [(SmallImageViews(), 16), (ImageNetViews(24), 24)])
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


def test_images_of_one_channel():
    view = random_views(IMAGES[:, :1], SmallImageViews(), (1,))[0]
    assert view.shape == (6, 1, 16, 16)
