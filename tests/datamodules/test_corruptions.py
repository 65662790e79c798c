import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import CORRUPTIONS, DigitsStream, Domain, corrupt, generator_for
from tta.errors import InputError

CHANGING = sorted(set(CORRUPTIONS) - {"clean"})
EVERY = sorted(CORRUPTIONS)


@pytest.fixture(scope="module")
def digits():
    module = DigitsStream()
    module.setup()
    return [module.stream[index][0] for index in range(16)]


def distance(images, name, severity):
    domain = Domain(name, severity)
    return sum((corrupt(x, domain, 0, i) - x).abs().mean().item() for i, x in enumerate(images)) / len(images)


@settings(max_examples=60)
@given(
    st.sampled_from(EVERY),
    st.floats(1, 5),
    st.sampled_from([1, 3]),
    st.integers(8, 40),
    st.integers(8, 40),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 2**40),
)
def test_shape_range_and_type_are_kept_and_runs_agree(name, severity, channels, height, width, dtype, seed):
    image = torch.rand(channels, height, width, generator=torch.Generator().manual_seed(0), dtype=dtype)
    before = image.clone()
    result = CORRUPTIONS[name](image, severity, generator_for(seed, name, 3))
    assert result.shape == image.shape
    assert result.dtype == dtype
    assert 0 <= result.min() <= result.max() <= 1
    assert torch.equal(image, before)
    assert torch.equal(result, CORRUPTIONS[name](image, severity, generator_for(seed, name, 3)))


@pytest.mark.parametrize("name", CHANGING)
def test_severity_five_changes_digits_more_than_one(name, digits):
    mild, medium, hard = (distance(digits, name, severity) for severity in (1, 3, 5))
    assert 0 < mild < medium < hard


@pytest.mark.parametrize("name", CHANGING)
def test_severity_five_changes_textures_more_than_one(name):
    # Smooth random images with all values, as a photograph has them.
    noise = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    images = torch.nn.functional.interpolate(noise, 32, mode="bicubic").clamp(0, 1)
    assert 0 < distance(images, name, 1) < distance(images, name, 5)


@pytest.mark.parametrize("name", CHANGING)
def test_fractions_lie_between_the_levels(name, digits):
    low, between, high = (distance(digits, name, severity) for severity in (2, 3.5, 5))
    assert low < between < high


def test_clean_is_the_identity(digits):
    assert torch.equal(corrupt(digits[0], Domain("clean", 5), 0, 0), digits[0])


@pytest.mark.parametrize(
    "name", ["gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "occlusion", "affine"]
)
def test_random_corruptions_differ_by_seed_and_index(name, digits):
    domain = Domain(name, 5)
    results = [corrupt(digits[0], domain, seed, index) for seed in range(3) for index in range(4)]
    assert len({result.numpy().tobytes() for result in results}) > 1


def test_generators_depend_on_seed_name_and_index():
    keys = [(0, "jpeg", 0), (1, "jpeg", 0), (0, "affine", 0), (0, "jpeg", 1)]
    assert len({generator_for(*key).initial_seed() for key in keys}) == 4


def test_generators_are_the_same_on_every_machine():
    assert generator_for(0, "gaussian_noise", 0).initial_seed() == 14942419444362139675


def test_corruption_leaves_the_global_random_state_alone(digits):
    state = torch.get_rng_state()
    for name in EVERY:
        corrupt(digits[0], Domain(name, 5), 0, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_lone_bright_pixel_is_inverted_and_dimmed():
    image = torch.zeros(3, 8, 8)
    image[:, 2, 3] = 1
    assert corrupt(image, Domain("invert", 5), 0, 0).max() == 0


def test_occlusion_covers_a_square_of_the_documented_size():
    result = corrupt(torch.zeros(3, 32, 32), Domain("occlusion", 5), 0, 0)
    assert (result == 0.5).sum().item() == 3 * 16 * 16


@pytest.mark.parametrize(("text", "expected"), [("jpeg:3", "jpeg:3"), ("jpeg", "jpeg:5"), ("clean", "clean")])
def test_domains_round_trip_through_text(text, expected):
    domain = Domain.parse(text, 5)
    assert str(domain) == expected
    assert Domain.parse(str(domain), 5) == domain


def test_a_fractional_severity_is_written_in_full():
    assert str(Domain.parse("jpeg:2.5", 5)) == "jpeg:2.5"


@pytest.mark.parametrize("severity", [0, 5.1, -1, float("nan")])
@pytest.mark.parametrize("name", ["clean", "jpeg"])
def test_a_severity_out_of_range_is_refused(name, severity):
    with pytest.raises(InputError, match=r"severity: .* is outside \[1, 5\]"):
        Domain(name, severity)
    with pytest.raises(InputError, match="severity"):
        CORRUPTIONS[name](torch.zeros(3, 8, 8), severity, torch.Generator())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gausian_noise", "Did you mean 'gaussian_noise'"),
        ("jpeg:9", "outside"),
        ("jpeg:hard", "no number"),
        ("", "domains"),
    ],
)
def test_a_wrong_domain_is_refused_in_one_line(text, message):
    with pytest.raises(InputError, match=message) as caught:
        Domain.parse(text, 5)
    assert "\n" not in str(caught.value)
