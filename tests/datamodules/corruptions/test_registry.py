"""What every corruption promises, in every level set that has it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.corruptions import CORRUPTIONS, LEVELS, Domain, corrupt
from datamodules.corruptions.registry import nearest_levels, parameters
from tta.errors import InputError

CASES = [(name, levels) for levels in LEVELS for name in sorted(LEVELS[levels])]
SIDES = {"32": 32, "64": 64, "224": 96, "digits": 32}


def show(images, name, severity, levels, indices=None, seed=3):
    return corrupt(images, Domain(((name, severity),)), seed, indices or range(len(images)), levels)


@pytest.mark.parametrize(("name", "levels"), CASES)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_does_not_depend_on_its_batch(name, levels, channels, smooth_images):
    side = SIDES[levels]
    images = smooth_images(5, channels, side, side)
    for severity in (3.0, 5.0):
        together = show(images, name, severity, levels)
        for position in (0, 3):
            alone = show(images[position : position + 1].clone(), name, severity, levels, [position])
            assert torch.equal(alone[0], together[position])
        order = [4, 1, 2]
        assert torch.equal(show(images[order], name, severity, levels, order), together[order])


@settings(max_examples=100)
@given(
    st.sampled_from(CASES),
    st.floats(0, 5),
    st.sampled_from([1, 3]),
    st.integers(8, 40),
    st.integers(8, 40),
    st.integers(0, 2**40),
)
def test_shape_type_and_range_are_kept_and_runs_agree(case, severity, channels, height, width, seed):
    name, levels = case
    images = torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    result = show(images, name, severity, levels, seed=seed)
    assert result.shape == images.shape
    assert result.dtype == torch.float32
    assert 0 <= result.min() <= result.max() <= 1
    assert torch.equal(images, before)
    assert torch.equal(result, show(images, name, severity, levels, seed=seed))


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize(("name", "levels"), CASES)
def test_black_and_white_images_stay_finite(name, levels, value):
    assert show(torch.full((2, 3, 32, 32), value), name, 5, levels).isfinite().all()


@pytest.mark.parametrize(("name", "levels"), CASES)
def test_images_change_at_severity_one(name, levels, smooth_images):
    side = SIDES[levels]
    images = smooth_images(3, 3, side, side)
    if (name, levels) == ("glass_blur", "32"):  # its first level moves few pixels
        assert (show(images, name, 1, levels) != images).any()
    else:
        assert (show(images, name, 1, levels) - images).abs().mean() > 1e-4


def test_every_corruption_stands_in_a_level_set():
    assert {name for name, _ in CASES} == set(CORRUPTIONS)
    assert set(LEVELS["32"]) == set(LEVELS["64"]) == set(LEVELS["224"])


def test_corruptions_leave_the_global_random_state_alone(smooth_images):
    state = torch.get_rng_state()
    for name, levels in CASES:
        show(smooth_images(2), name, 5, levels)
    assert torch.equal(torch.get_rng_state(), state)


def test_parameters_lie_between_those_of_whole_severities():
    assert parameters("gaussian_noise", 2, "32") == (0.06,)
    assert parameters("gaussian_noise", 2.5, "32") == pytest.approx((0.07,))
    assert parameters("saturate", 3.5, "224") == pytest.approx((3.5, 0.05))


@pytest.mark.parametrize(("side", "levels"), [(8, "32"), (48, "32"), (49, "64"), (128, "64"), (129, "224")])
def test_levels_are_those_of_the_nearest_published_size(side, levels):
    assert nearest_levels(side) == levels


def test_an_unknown_level_set_is_refused(smooth_images):
    with pytest.raises(InputError, match=r"levels: '65' is unknown.*64"):
        show(smooth_images(1), "contrast", 1, "65")


def test_a_corruption_missing_in_a_set_is_refused(smooth_images):
    with pytest.raises(InputError, match=r"domains \(with levels '224'\): 'affine' is unknown"):
        show(smooth_images(1), "affine", 1, "224")
