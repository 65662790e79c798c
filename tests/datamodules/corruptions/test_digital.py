import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.corruptions import CORRUPTIONS, Draws


def shown(name, images, *parameters):
    return CORRUPTIONS[name](images, Draws(range(len(images))), *parameters)


def by_hsv(image, change):
    """Change each pixel ``(hue, saturation, value)`` by hand."""
    pixels = image.flatten(1).T.tolist()
    changed = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in pixels]
    return torch.tensor(changed).T.view_as(image)


@pytest.fixture
def colours(smooth_images):
    """Random colours, and black, white, a grey, and pure red, green and blue."""
    image = smooth_images(1, 3, 8, 8)
    corner = [[0, 0, 0], [1, 1, 1], [0.4, 0.4, 0.4], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    image[0, :, 0, :6] = torch.tensor(corner).T
    return image


def test_contrast_pulls_each_channel_to_its_mean():
    image = torch.tensor([[0.0, 1.0], [0.5, 0.5], [0.2, 0.4]]).view(1, 3, 1, 2)
    expected = torch.tensor([[0.3, 0.7], [0.5, 0.5], [0.26, 0.34]]).view(1, 3, 1, 2)
    torch.testing.assert_close(shown("contrast", image, 0.4), expected)


@pytest.mark.parametrize("amount", [0.05, 0.3, 0.5])
def test_brightness_adds_to_the_value(colours, amount):
    expected = by_hsv(colours[0], lambda h, s, v: (h, s, min(v + amount, 1)))
    torch.testing.assert_close(shown("brightness", colours, amount)[0], expected)


def test_brightness_of_grey_images_is_added():
    grey = torch.tensor([0.0, 0.5, 0.9]).view(1, 1, 1, 3)
    torch.testing.assert_close(shown("brightness", grey, 0.3).flatten(), torch.tensor([0.3, 0.8, 1.0]))


@pytest.mark.parametrize(("factor", "offset"), [(0.3, 0), (2, 0.1), (20, 0.2)])
def test_saturate_changes_the_saturation(colours, factor, offset):
    expected = by_hsv(colours[0], lambda h, s, v: (h, min(s * factor + offset, 1), v))
    torch.testing.assert_close(shown("saturate", colours, factor, offset)[0], expected)


def test_saturate_leaves_grey_images_alone(smooth_images):
    grey = smooth_images(2, 1)
    assert torch.equal(shown("saturate", grey, 5, 0.1), grey)


def test_pixelate_averages_boxes():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    boxes = torch.tensor([[2.5, 4.5], [10.5, 12.5]])
    expected = boxes.repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(shown("pixelate", image, 0.5)[0, 0], expected)


@pytest.mark.parametrize("scale", [0.95, 0.65, 0.6, 0.25, 0.19])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (37, 50), (224, 224)])
def test_pixelate_agrees_with_pillow(smooth_images, scale, height, width):
    image = smooth_images(1, 3, height, width)
    picture = Image.fromarray((image[0] * 255).round().byte().permute(1, 2, 0).numpy())
    small = picture.resize((int(width * scale), int(height * scale)), Image.Resampling.BOX)
    expected = np.asarray(small.resize((width, height), Image.Resampling.BOX)).transpose(2, 0, 1)
    assert np.abs(shown("pixelate", image, scale)[0].numpy() * 255 - expected).max() < 1.01


def by_pillow(image, quality):
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(file), dtype=np.float32) / 255
    return torch.from_numpy(decoded).view(*image.shape[1:], -1).movedim(-1, 0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [80, 25, 7])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (24, 31), (33, 30)])
def test_jpeg_compression_agrees_with_pillow(smooth_images, quality, channels, height, width):
    smooth = smooth_images(1, channels, height, width)
    noise = torch.rand(smooth.shape, generator=torch.Generator().manual_seed(0))
    expected = [by_pillow(image, quality) for image in (smooth[0], noise[0])]
    result = shown("jpeg_compression", torch.cat([smooth, noise]), quality)
    torch.testing.assert_close(result, torch.stack(expected))


def test_qualities_between_whole_numbers_are_rounded(images):
    assert torch.equal(shown("jpeg_compression", images, 24.6), shown("jpeg_compression", images, 25))
