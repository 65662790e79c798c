"""AugMix views: operations against Pillow, mixtures against their bounds."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tta import InputError
from tta.adapters import augmix_views
from tta.adapters.augmix_views import AugMixViews
from tta.adapters.views import random_views


@pytest.fixture
def image() -> Tensor:
    """A smooth coloured image (3, 32, 24) of 8 bit values in [0, 1]."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 24), indexing="ij")
    channels = torch.stack([x, y, 0.2 + 0.5 * (x - y).abs()])
    return (channels * 255).round() / 255


def pillow(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def affine(image: Image.Image, data: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.AFFINE, data, resample=Image.BILINEAR, fillcolor=(128, 128, 128))


GEOMETRY = {
    "rotate": lambda image: image.rotate(2, resample=Image.BILINEAR, fillcolor=(128, 128, 128)),
    "shear_x": lambda image: affine(image, (1, 0.03 * 0.9, 0, 0, 1, 0)),
    "shear_y": lambda image: affine(image, (1, 0, 0, 0.03 * 0.9, 1, 0)),
    "translate_y": lambda image: affine(image, (1, 0, 0, 0, 1, 0)),
}


@pytest.mark.parametrize("name", GEOMETRY)
def test_moves_are_those_of_pillow(image, name):
    """Within 2 of 255 away from the edges, where Pillow does not blend with what is beyond."""
    got = getattr(augmix_views, name)(image.unsqueeze(0), torch.tensor([0.9]))[0]
    expected = tensor(GEOMETRY[name](pillow(image)))
    assert float((got - expected).abs()[:, 2:-2, 2:-2].max()) <= 2 / 255
    if name != "translate_y":  # of 32 pixels, a thirtieth of 0.9 is none
        assert not torch.allclose(got, image, atol=1e-3)


def test_shifts_are_of_whole_pixels_over_grey():
    image = torch.rand(1, 3, 90, 60, generator=torch.Generator().manual_seed(0))
    down = augmix_views.translate_y(image, torch.tensor([-0.9]))
    torch.testing.assert_close(down[:, :, 2:], image[:, :, :-2], rtol=0, atol=1e-4)
    torch.testing.assert_close(down[:, :, :2], torch.full((1, 3, 2, 60), 128 / 255), rtol=0, atol=1e-4)
    left = augmix_views.translate_x(image, torch.tensor([0.6]))
    torch.testing.assert_close(left[..., :-1], image[..., 1:], rtol=0, atol=1e-4)


TONES = {
    "autocontrast": ImageOps.autocontrast,
    "equalize": ImageOps.equalize,
    "posterize": lambda image: ImageOps.posterize(image, 4),
    "solarize": lambda image: ImageOps.solarize(image, 256 - int(0.9 * 25.6)),
}


@pytest.mark.parametrize(
    ("name", "tolerance"), [("autocontrast", 1), ("equalize", 1), ("posterize", 4), ("solarize", 0)]
)
def test_tones_are_those_of_pillow(image, name, tolerance):
    got = getattr(augmix_views, name)(image.unsqueeze(0), torch.tensor([0.9]))[0]
    expected = tensor(TONES[name](pillow(image)))
    assert float((got - expected).abs().max()) <= tolerance / 255 + 1e-6
    assert not torch.allclose(got, image, atol=1e-3)


def test_images_of_a_batch_have_levels_of_their_own(image):
    both = augmix_views.rotate(image.expand(2, -1, -1, -1), torch.tensor([0.9, -0.9]))
    assert not torch.allclose(both[0], both[1], atol=1e-2)
    torch.testing.assert_close(both[1], augmix_views.rotate(image[None], torch.tensor([-0.9]))[0])


@pytest.mark.parametrize(("views", "shape"), [
    (AugMixViews(), (32, 24)),
    (AugMixViews("resized"), (32, 24)),
    (AugMixViews("resized", size=16), (16, 16)),
])  # fmt: skip
def test_views_are_images_that_differ(image, views, shape):
    many = random_views(image.expand(8, -1, -1, -1), views, (0,), 1)[0]
    assert many.shape == (8, 3, *shape)
    assert many.min() >= 0
    assert many.max() <= 1
    assert len({tuple(view.flatten().tolist()) for view in many}) == 8
    together = views(image.expand(8, -1, -1, -1))
    assert together.shape == many.shape
    assert len({tuple(view.flatten().tolist()) for view in together}) == 8


def test_a_view_is_between_the_cropped_image_and_its_changes(monkeypatch, image):
    """With chains that turn everything white, a view is a mixture of the image and of white, one share for all."""
    white = (lambda images, levels: torch.ones_like(images),)
    monkeypatch.setattr(augmix_views, "OPERATIONS", white)
    monkeypatch.setattr(AugMixViews, "_crop", lambda self, shape: torch.nn.Identity())
    torch.manual_seed(0)
    dark = 0.5 * image.expand(200, -1, -1, -1)
    views = AugMixViews()(dark)
    shares = []
    for view in views:
        plain = min((dark[0], dark[0].flip(-1)), key=lambda d: float(((view - d) / (1 - d)).std()))
        ratio = (view - plain) / (1 - plain)
        assert float(ratio.std()) < 1e-5
        shares.append(float(ratio.mean()))
    assert 0.4 < sum(shares) / 200 < 0.6, "uniform"
    assert min(shares) < 0.05
    assert max(shares) > 0.95


def test_chains_have_one_to_three_changes(monkeypatch):
    """Each change of these adds 0.1."""
    monkeypatch.setattr(augmix_views, "OPERATIONS", (lambda images, levels: images + 0.1,))
    torch.manual_seed(0)
    changed = augmix_views._chains(torch.zeros(300, 1, 1, 1)).flatten()
    values, counts = (changed * 10).round().unique(return_counts=True)
    assert values.tolist() == [1, 2, 3]
    assert counts.min() > 70


@pytest.mark.parametrize("arguments", [{"crop": "centre"}, {"size": 8}, {"crop": "resized", "size": 0}])
def test_crops_that_do_not_exist(arguments):
    with pytest.raises(InputError, match="crop is padded or resized"):
        AugMixViews(**arguments)
