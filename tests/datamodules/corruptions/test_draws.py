import pytest
import torch

from datamodules.corruptions import Draws, generator_for, image_seed

KINDS = {
    "uniform": lambda draws: draws.uniform(3, 5),
    "normal": lambda draws: draws.normal(3, 5),
    "integers": lambda draws: draws.integers(3, 5, low=-4, high=9),
    "poisson": lambda draws: draws.poisson(torch.full((len(draws), 3, 5), 20.0)),
    "one number": lambda draws: draws.uniform(),
}


def test_seeds_depend_on_seed_name_and_index():
    keys = [(0, "affine", 0), (1, "affine", 0), (0, "contrast", 0), (0, "affine", 1)]
    assert len({image_seed(*key) for key in keys}) == 4


def test_generators_are_the_same_on_every_machine():
    assert generator_for(0, "gaussian_noise", 0).initial_seed() == 14942419444362139675
    assert image_seed(0, "gaussian_noise", 0) == 14942419444362139675


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_image_draws_does_not_depend_on_its_batch(kind):
    together = KINDS[kind](Draws([11, 12, 13]))
    for position, seed in [(0, 11), (1, 12), (2, 13)]:
        assert torch.equal(KINDS[kind](Draws([seed]))[0], together[position])
    assert torch.equal(KINDS[kind](Draws([13, 11])), together[[2, 0]])


def test_draws_have_the_asked_type_and_range():
    draws = Draws([1, 2])
    assert draws.uniform(4, low=-2, high=3).dtype == torch.float32
    assert draws.normal(4).shape == (2, 4)
    numbers = draws.integers(1000, low=-2, high=2)
    assert numbers.dtype == torch.int64
    assert numbers.unique().tolist() == [-2, -1, 0, 1]


def test_draws_have_the_asked_moments():
    draws = Draws(range(4))
    uniform, normal = draws.uniform(20_000, low=-2, high=4), draws.normal(20_000, mean=3, std=0.5)
    torch.testing.assert_close(uniform.mean(1), torch.ones(4), atol=0.06, rtol=0)
    torch.testing.assert_close(uniform.var(1), torch.full((4,), 3.0), atol=0.08, rtol=0)
    torch.testing.assert_close(normal.mean(1), torch.full((4,), 3.0), atol=0.02, rtol=0)
    torch.testing.assert_close(normal.std(1), torch.full((4,), 0.5), atol=0.02, rtol=0)


@pytest.mark.parametrize("rate", [0.3, 4.0, 60.0])
def test_counts_have_the_asked_mean_and_variance(rate):
    counts = Draws([5]).poisson(torch.full((1, 40_000), rate))
    assert counts.mean().item() == pytest.approx(rate, rel=0.03)
    assert counts.var().item() == pytest.approx(rate, rel=0.05)
    assert torch.equal(counts, counts.round())


def test_the_global_random_state_is_left_alone():
    state = torch.get_rng_state()
    for draw in KINDS.values():
        draw(Draws([1, 2]))
    assert torch.equal(torch.get_rng_state(), state)
