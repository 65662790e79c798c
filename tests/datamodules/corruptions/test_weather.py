import pytest
import torch

NAMES = ["snow", "frost", "fog"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", ["32", "64", "224"])
@pytest.mark.parametrize("name", NAMES)
def test_any_size_channels_and_levels(name, levels, channels, smooth_images, apply):
    images = smooth_images(2, channels, 9, 40)
    for severity in (0.5, 1, 2.5, 5):
        corrupted = apply(images, f"{name}:{severity}", levels)
        assert corrupted.shape == images.shape
        assert 0 <= corrupted.min() <= corrupted.max() <= 1
        assert not torch.equal(corrupted, images)


@pytest.mark.parametrize("name", NAMES)
def test_grey_images_are_corrupted_as_their_colour_copies_are(name, smooth_images, apply):
    grey = smooth_images(3, 1) * 0.5  # so that nothing is cut off
    coloured = apply(grey.expand(-1, 3, -1, -1).contiguous(), f"{name}:1")
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert torch.allclose(apply(grey, f"{name}:1"), (coloured * weights).sum(1, keepdim=True), atol=1e-5)


@pytest.mark.parametrize("name", ["snow", "frost"])
def test_images_lighten_with_severity(name, smooth_images, apply):
    images = smooth_images(16) * 0.4
    means = [apply(images, f"{name}:{severity}", "32").mean() for severity in (1, 5)]
    assert images.mean() < means[0] < means[1]


def test_snow_is_the_same_upside_down(apply):
    snowed = apply(torch.zeros(2, 3, 64, 64), "snow:4", "224")
    assert torch.allclose(snowed, snowed.flip(-2, -1), atol=1e-6)
    assert snowed.std() > 0.1


def test_snow_falls_rather_than_drifts(apply):
    snowed = apply(torch.zeros(32, 3, 224, 224), "snow:5")
    across, down = snowed.diff(dim=3).square().mean(), snowed.diff(dim=2).square().mean()
    assert down < 0.8 * across


def test_frost_is_bluish_and_repeats_no_part(apply):
    frosted = apply(torch.zeros(24, 3, 32, 32), "frost:5")
    red, _, blue = frosted.mean((0, 2, 3))
    assert 0 < red < blue
    assert len(torch.unique(frosted.flatten(1), dim=0)) == 24


def test_frost_covers_images_larger_than_its_textures(apply):
    frosted = apply(torch.zeros(1, 3, 520, 530), "frost:1")
    assert torch.equal(frosted[..., :8, :8], frosted[..., 512:520, 512:520])
    assert frosted.std() > 0.01


def test_fog_does_not_exceed_the_brightest_value(smooth_images, apply):
    images = smooth_images(4) * 0.8
    fogged = apply(images, "fog:5")
    assert (fogged.amax((1, 2, 3)) <= images.amax((1, 2, 3)) + 1e-5).all()


def test_fog_hides_the_image(smooth_images, apply):
    images = smooth_images(4)
    pairs = [apply(images, f"fog:{severity}", "32") - apply(1 - images, f"fog:{severity}", "32") for severity in (1, 5)]
    assert pairs[1].std() < 0.6 * pairs[0].std()


def test_fog_is_one_for_all_channels(apply):
    fogged = apply(torch.full((2, 3, 48, 40), 0.5), "fog:3")
    assert torch.equal(fogged[:, 0], fogged[:, 1])
    assert fogged.std() > 0.02


def test_fog_lies_in_clouds(apply):
    fog = apply(torch.full((16, 1, 64, 64), 0.5), "fog:1", "32")
    neighbours = fog.diff(dim=3).square().mean()
    strangers = (fog - fog.flip(0)).square().mean()
    assert neighbours < 0.1 * strangers
