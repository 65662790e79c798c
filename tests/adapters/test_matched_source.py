import copy

import pytest
import torch
from torch import Tensor

import tta
from tta.adapters.matched_source import NEIGHBOURS, RECENT, MatchedSource


@pytest.fixture
def filled(digits):
    matched = MatchedSource(size=60, seed=0)
    matched.fill(digits[0][:300], digits[1][:300], num_classes=10)
    return matched


def one_hot(classes: Tensor) -> Tensor:
    return 6.0 * torch.nn.functional.one_hot(classes, 10).float()


def test_images_are_kept_in_the_shares_of_their_classes(filled, digits):
    assert filled.images.dtype == torch.uint8
    assert len(filled.images) == 60
    shares = torch.bincount(filled.labels, minlength=10) / 60
    assert torch.allclose(shares, torch.bincount(digits[1][:300], minlength=10) / 300, atol=0.02)


def test_probes_have_the_classes_that_are_asked_for_and_the_looks_of_the_stream(filled, digits):
    filled.see(0.3 * digits[0][1000:1064])
    prior = torch.zeros(10)
    prior[[2, 5]] = torch.tensor([0.75, 0.25])
    images, labels = filled.draw(prior, 400, filled.looks())
    assert images.shape == (400, 3, 32, 32)
    assert set(labels.tolist()) == {2, 5}
    assert float((labels == 2).float().mean()) == pytest.approx(0.75, abs=0.08)
    clean = filled.images.float() / 255
    assert float(images.std()) == pytest.approx(0.3 * float(clean.std()), rel=0.15)


def test_draws_are_of_the_seed_and_leave_the_global_generator_alone(digits):
    drawn = []
    for seed in (0, 0, 1):
        matched = MatchedSource(60, seed)
        matched.fill(digits[0][:300], digits[1][:300], 10)
        matched.see(digits[0][1000:1064])
        before = torch.get_rng_state()
        drawn.append(torch.cat([matched.draw(torch.full((10,), 0.1), 8, matched.looks())[0] for _ in range(2)]))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0][:8], drawn[0][8:])


def settled(matched: MatchedSource) -> Tensor:
    """Logits on which every class comes equally often; five batches of them make the usual."""
    even = one_hot(torch.arange(60) % 10)
    for _ in range(5):
        assert torch.allclose(matched.composition(even, even), torch.full((10,), 0.1), atol=1e-3)
    return even


def test_a_batch_of_one_class_is_told_from_a_model_that_favours_it(filled):
    even, one_class = settled(filled), one_hot(torch.full((60,), 3))
    assert float(filled.composition(one_class, even)[3]) > 0.8
    # On probes of all classes the source model says class 3 as well: it favours it on such images.
    assert float(filled.composition(one_class, one_class)[3]) < 0.3


def test_what_a_model_says_at_all_times_is_no_class_balance(filled):
    """Probes do not show that it favours class 3 on such images, but its usual answers do."""
    even, one_class = one_hot(torch.arange(60) % 10), one_hot(torch.full((60,), 3))
    for _ in range(20):
        prior = filled.composition(one_class, even)
    assert float(prior.max()) < 0.3


def test_the_first_batch_is_taken_as_nearly_even(filled):
    logits = one_hot(torch.full((60,), 3))
    assert float(filled.composition(logits, one_hot(torch.arange(60) % 10)).max()) < 0.3


def test_rows_that_are_not_finite_say_nothing(filled):
    even = settled(filled)
    usual = filled.usual.clone()
    broken = torch.full((6, 10), float("nan"))
    assert torch.equal(filled.composition(broken, even), filled.uniform)
    assert torch.equal(filled.composition(even, broken), filled.uniform)
    assert torch.equal(filled.usual, usual)
    one_class = one_hot(torch.full((60,), 3))
    expected = copy.deepcopy(filled).composition(one_class, even)
    assert torch.equal(filled.composition(torch.cat([broken, one_class]), torch.cat([even, broken])), expected)


def test_only_the_latest_images_are_remembered(filled, digits):
    filled.see(digits[0][: RECENT + 5])
    filled.see(torch.zeros(1, 3, 32, 32))
    assert filled.recent.shape[0] == RECENT
    assert torch.equal(filled.recent[1], (digits[0][6] * 255).round().byte())  # the sixth was the oldest that stayed
    assert int((filled.recent.flatten(1).sum(1) == 0).sum()) == 1


def test_a_single_image_in_memory_is_enough_to_draw(filled, digits):
    filled.see(digits[0][:1])
    images, _ = filled.draw(torch.full((10,), 0.1), NEIGHBOURS, filled.looks())
    assert torch.isfinite(images).all()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            torch.rand(20, 3, 8, 8) - 0.5,
            torch.arange(20) % 10,
            r"source images from -0\.\d+ to 0\.\d+: the guard matches",
        ),
        (torch.rand(20, 3, 8, 8), torch.arange(20) % 9, "do not fit at class 9: the guard needs at least one source"),
        (torch.rand(20, 3, 8, 8), torch.arange(20) % 12, "the model's 10 classes do not fit at class 11"),
    ],
)
def test_unusable_source_images_are_refused(images, labels, message):
    with pytest.raises(tta.InputError, match=message):
        MatchedSource(20, 0).fill(images, labels, 10)


def test_another_image_size_is_refused(filled):
    with pytest.raises(
        tta.InputError, match=r"images of \(3, 8, 8\) in a stream whose source images are \(3, 32, 32\)"
    ):
        filled.check(torch.rand(2, 3, 8, 8))
