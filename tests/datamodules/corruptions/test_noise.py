import pytest
import torch

from datamodules.corruptions import CORRUPTIONS, LEVELS, Draws


def corrupted(name, value, *parameters, number=16, channels=3):
    images = torch.full((number, channels, 64, 64), value)
    return CORRUPTIONS[name](images, Draws(range(number)), *parameters)


def test_gaussian_noise_has_the_given_deviation():
    noise = corrupted("gaussian_noise", 0.5, 0.1) - 0.5
    assert noise.mean().item() == pytest.approx(0, abs=2e-3)
    assert noise.std().item() == pytest.approx(0.1, rel=0.02)


def test_speckle_noise_grows_with_the_value():
    assert corrupted("speckle_noise", 0.8, 0.2).std().item() == pytest.approx(0.16, rel=0.02)
    assert (corrupted("speckle_noise", 0.0, 0.2) == 0).all()


@pytest.mark.parametrize("value", [0.2, 1.0])
def test_shot_noise_counts_photons(value):
    counted = corrupted("shot_noise", value, 25.0)
    assert counted.mean().item() == pytest.approx(value, rel=0.02)
    assert counted.var().item() == pytest.approx(value / 25, rel=0.05)
    torch.testing.assert_close(counted * 25, (counted * 25).round())


@pytest.mark.parametrize("share", LEVELS["224"]["impulse_noise"])
def test_impulse_noise_is_half_salt_and_half_pepper(share):
    noisy = corrupted("impulse_noise", 0.5, share)
    assert (noisy == 1).float().mean().item() == pytest.approx(share / 2, rel=0.1)
    assert (noisy == 0).float().mean().item() == pytest.approx(share / 2, rel=0.1)
    assert ((noisy == 0.5) | (noisy == 0) | (noisy == 1)).all()


def test_impulse_noise_takes_each_channel_by_itself():
    hit = corrupted("impulse_noise", 0.5, 0.2) != 0.5
    assert (hit.all(1).float().mean() < 0.02).item()


@pytest.mark.parametrize("name", ["gaussian_noise", "speckle_noise", "impulse_noise"])
def test_noise_is_independent_between_images_and_pixels(name):
    noise = (corrupted(name, 0.5, 0.2) - 0.5).flatten(1)
    assert torch.corrcoef(noise).fill_diagonal_(0).abs().max() < 0.04
    assert torch.corrcoef(torch.stack([noise[0, 1:], noise[0, :-1]]))[0, 1].abs() < 0.04
