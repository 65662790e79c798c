import pytest
import torch
from torchvision.transforms.v2.functional import gaussian_blur

from tta.functional.spectrum import Spectrum, match_spectrum, spectra


@pytest.fixture
def images(digits):
    """Low in contrast, so that nothing that is added leaves [0, 1]."""
    return 0.4 + 0.2 * digits[0][:200]


def matched(source, target):
    whole = spectra(source).average()
    return match_spectrum(source, whole, spectra(target).average(), torch.Generator().manual_seed(0))


def distance(images, target):
    """Largest difference of the average power from the target's, relative to its largest."""
    power, wanted = (spectra(x).average().power for x in (images, target))
    return float((power - wanted).abs().max() / wanted.max())


def test_power_is_that_of_the_transform_by_hand():
    image = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    result = spectra(image)
    assert result.mean.tolist() == [[0.5]]
    # Two columns that alternate: all of it at the highest horizontal frequency, 4 * 0.5 squared.
    assert torch.equal(result.power, torch.tensor([[[[0.0, 4.0], [0.0, 0.0]]]]))


def test_a_set_matched_to_itself_stays_as_it_is(images):
    assert torch.allclose(matched(images, images), images, atol=1e-5)


def test_blur_contrast_and_brightness_are_taken_over(images):
    for change in (lambda x: gaussian_blur(x, [5, 5], [1.5, 1.5]), lambda x: 0.3 * x + 0.3):
        target = change(images)
        result = matched(images, target)
        assert distance(result, target) < 1e-3
        assert distance(images, target) > 0.05
        assert torch.allclose(result.mean(), target.mean(), atol=1e-4)
    # Contrast is a factor on each image: but for their own mean colours, which stay, they are the target's themselves.
    assert torch.allclose(*(x - x.mean(dim=(2, 3), keepdim=True) for x in (result, target)), atol=1e-4)


def test_noise_is_added_with_the_power_that_the_target_has_more(images):
    generator = torch.Generator().manual_seed(1)
    target = images + 0.05 * torch.randn(images.shape, generator=generator)
    result = matched(images, target)
    assert float((result - images).std()) == pytest.approx(0.05, rel=0.05)
    assert distance(result, target) < 0.05


def test_each_image_can_have_a_target_of_its_own(images):
    target = Spectrum(torch.stack([images[0].mean((1, 2)), torch.zeros(3)]), torch.zeros(2, 3, 32, 17))
    result = match_spectrum(images[:2], spectra(images).average(), target, torch.Generator())
    assert all(float(image.std()) < 1e-6 for image in result[:, 0])  # no power but the mean
    assert not torch.allclose(result[0], result[1])


def test_neighbourhoods_keep_domains_apart(images):
    """Half of the images are noisy: the average over neighbours of either half is like that half's own."""
    generator = torch.Generator().manual_seed(1)
    noisy = images[:50] + 0.2 * torch.randn(50, 3, 32, 32, generator=generator)
    mixed = spectra(torch.cat([images[50:100], noisy]))
    near = mixed.neighbourhoods(torch.arange(100), size=16)
    high = near.power[:, :, 12:20, 8:].mean(dim=(1, 2, 3))
    assert float(high[:50].max()) < 0.5 * float(high[50:].min())
    everything = mixed.neighbourhoods(torch.tensor([0, 99]), size=1000)
    assert torch.allclose(everything.power[0], mixed.average().power, rtol=1e-4)
    alone = mixed.neighbourhoods(torch.tensor([7]), size=1)
    assert torch.allclose(alone.power[0], mixed.power[7])
