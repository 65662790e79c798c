import pytest
import torch

from datamodules.corruptions.frost import KINDS, SHARES, frost_textures


def test_textures_have_the_colour_and_contrast_of_their_kinds():
    for texture, kind in zip(frost_textures(1.0), SHARES, strict=True):
        assert torch.allclose(texture.mean((1, 2)), torch.tensor(KINDS[kind].colour), atol=0.005)
        assert torch.allclose(texture.std((1, 2)), torch.tensor(KINDS[kind].contrast), atol=0.005)


def test_opposite_borders_fit_together():
    textures = frost_textures(1.0)
    seam = (textures[..., 0] - textures[..., -1]).abs().mean()
    assert seam < 1.5 * textures.diff(dim=3).abs().mean()


@pytest.mark.parametrize("scale", [0.2, 0.3])
def test_shrunk_textures_keep_their_colour(scale):
    shrunk = frost_textures(scale)
    assert shrunk.shape == (5, 3, round(512 * scale), round(512 * scale))
    assert torch.allclose(shrunk.mean((2, 3)), frost_textures(1.0).mean((2, 3)), atol=0.01)


def test_power_falls_with_frequency():
    power = torch.fft.rfft2(frost_textures(1.0)[:, 1])[:, 0].abs().square()
    bands = torch.stack([power[:, 2**octave : 2 ** (octave + 1)].mean(1) for octave in range(8)], 1)
    assert (bands[:, -1] < 0.01 * bands[:, 0]).all()
