import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.corruptions import CORRUPTIONS, LEVELS, Domain, corrupt
from tta.errors import InputError

SMOOTH = [
    "gaussian_noise",
    "speckle_noise",
    "gaussian_blur",
    "motion_blur",
    "zoom_blur",
    "contrast",
    "brightness",
    "saturate",
]
ORDERED = [
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "gaussian_blur",
    "defocus_blur",
    "zoom_blur",
    "contrast",
    "brightness",
]

parts = st.lists(
    st.tuples(st.sampled_from(sorted(CORRUPTIONS)), st.floats(0, 5).map(lambda severity: round(severity, 3))),
    max_size=3,
)


def test_severity_zero_is_clean(images, apply):
    for name in LEVELS["32"]:
        assert torch.equal(apply(images, f"{name}:0"), images)


def test_clean_is_the_identity(images, apply):
    assert torch.equal(apply(images, "clean"), images)


@pytest.mark.parametrize("name", sorted(LEVELS["32"]))
def test_below_one_images_fade_from_clean_to_severity_one(name, images, apply):
    first = apply(images, f"{name}:1")
    torch.testing.assert_close(apply(images, f"{name}:0.25"), 0.75 * images + 0.25 * first)


@pytest.mark.parametrize("severity", [0.995, 1.5, 2.995, 4.4])
@pytest.mark.parametrize("name", SMOOTH)
def test_a_small_step_of_severity_is_a_small_change(name, severity, apply, smooth_images):
    images = smooth_images(4, 3, 64, 64)
    step = (apply(images, f"{name}:{severity}", "224") - apply(images, f"{name}:{severity + 0.01}", "224")).abs().mean()
    assert step < 0.01


@pytest.mark.parametrize("levels", ["32", "64", "224"])
@pytest.mark.parametrize("name", ORDERED)
def test_a_higher_severity_is_further_from_the_image(name, levels, apply, smooth_images):
    images = smooth_images(4, 3, 64, 64)
    errors = [(apply(images, f"{name}:{severity}", levels) - images).square().mean() for severity in range(6)]
    # Some neighbours in the published tables hardly differ, such as the first disks of 32 pixels.
    assert all(low <= high * 1.001 for low, high in itertools.pairwise(errors))
    assert errors[1] < errors[5]


@pytest.mark.parametrize("name", sorted(LEVELS["digits"]))
def test_digits_corruptions_grow_with_their_severity(name, apply, smooth_images):
    images = smooth_images(16, 3, 32, 32)
    mild, hard = ((apply(images, f"{name}:{severity}", "digits") - images).abs().mean() for severity in (1, 5))
    assert 0 < mild < hard


def test_chains_are_applied_from_left_to_right(images, apply):
    chained = apply(images, "contrast:2+brightness:3")
    assert torch.equal(chained, apply(apply(images, "contrast:2"), "brightness:3"))
    assert not torch.equal(chained, apply(images, "brightness:3+contrast:2"))


def test_random_corruptions_differ_by_seed_and_index(images):
    domain = Domain((("gaussian_noise", 5),))
    same = images[:1].expand(3, -1, -1, -1)
    results = [corrupt(same, domain, seed, range(3)) for seed in range(2)]
    assert len({image.numpy().tobytes() for result in results for image in result}) == 6


@given(parts)
def test_domains_round_trip_through_text(parts):
    domain = Domain(tuple(parts))
    assert Domain.parse(str(domain), 2) == domain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("contrast:3", "contrast:3"),
        ("contrast", "contrast:4"),
        ("clean", "clean"),
        ("clean:2", "clean"),
        ("contrast:2.5", "contrast:2.5"),
        ("contrast:1 + brightness", "contrast:1+brightness:4"),
        ("clean+contrast:1", "contrast:1"),
    ],
)
def test_texts_are_written_in_full(text, expected):
    assert str(Domain.parse(text, 4)) == expected


@pytest.mark.parametrize("severity", [5.1, -1, float("nan"), float("inf")])
def test_a_severity_out_of_range_is_refused(severity):
    with pytest.raises(InputError, match=r"severity: .* is outside \[0, 5\]"):
        Domain((("contrast", severity),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gausian_noise", "Did you mean 'gaussian_noise'"),
        ("contrast:9", "outside"),
        ("contrast:hard", "no number after the colon"),
        ("contrast:", "no number after the colon"),
        ("contrast:1+", "domains: '' is unknown"),
        ("", "domains"),
    ],
)
def test_a_wrong_domain_is_refused_in_one_line(text, message):
    with pytest.raises(InputError, match=message) as caught:
        Domain.parse(text, 5)
    assert "\n" not in str(caught.value)
