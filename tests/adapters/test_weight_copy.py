"""A second set of weights."""

import pytest
import torch
from torch import nn

from tta.adapters.weight_copy import WeightCopy


@pytest.fixture
def toy() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3)).eval()
    network[0].requires_grad_(False)
    return network


def filled(model: nn.Module) -> WeightCopy:
    copied = WeightCopy()
    copied.fill(model)
    return copied


def test_it_holds_what_may_change_and_fills_once(toy: nn.Sequential) -> None:
    copied = filled(toy)
    trained = {"1.weight", "1.bias", "2.weight", "2.bias"}
    assert set(copied.values()) == trained | {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    nn.init.zeros_(toy[2].weight)
    copied.fill(toy)
    assert bool(copied.values()["2.weight"].all())


@pytest.mark.parametrize("momentum", [0.0, 0.001, 0.7, 0.9, 0.99, 0.999, 1.0])
def test_weights_that_equal_the_models_stay_equal_bit_for_bit(toy: nn.Sequential, momentum: float) -> None:
    copied = filled(toy)
    for _ in range(50):
        copied.follow(toy, momentum)
    assert all(torch.equal(copied.values()[name], p) for name, p in toy.named_parameters() if p.requires_grad)


def test_it_follows_parameters_and_not_buffers(toy: nn.Sequential) -> None:
    copied = filled(toy)
    before = {name: value.clone() for name, value in copied.values().items()}
    with torch.no_grad():
        toy[2].bias += 1.0
        toy[1].running_mean += 1.0
    copied.follow(toy, 0.75)
    torch.testing.assert_close(copied.values()["2.bias"], before["2.bias"] + 0.25)
    assert torch.equal(copied.values()["1.running_mean"], before["1.running_mean"])


def test_the_model_runs_with_the_copy_and_keeps_its_own(toy: nn.Sequential) -> None:
    copied, x = filled(toy), torch.rand(4, 5)
    expected = toy(x)
    with torch.no_grad():
        toy[2].bias += 1.0
    changed = toy(x)
    toy.train()
    assert torch.equal(copied.run_frozen(toy, x), expected)
    assert all(module.training for module in toy.modules())
    toy.eval()
    assert torch.equal(toy(x), changed)
    copied.write_to(toy)
    assert torch.equal(toy(x), expected)


def test_one_copy_takes_over_another_in_place(toy: nn.Sequential) -> None:
    one, other = filled(toy), filled(toy)
    with torch.no_grad():
        toy[2].bias += 1.0
    other.follow(toy, 0.0)
    place = one.values()["2.bias"]
    one.copy_from(other)
    assert one.values()["2.bias"] is place
    assert torch.equal(place, toy[2].bias)
