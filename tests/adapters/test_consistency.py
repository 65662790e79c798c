"""Parts of ITTA."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from tta.adapters.blocks import changed_outputs, check_blocks, shapes_after
from tta.adapters.consistency import AffineMaps, LearnableConsistency, StyleBank, StyleDraw, parameter_shape
from tta.errors import InputError
from tta.functional import style

CPU = torch.device("cpu")


def test_the_loss_starts_as_relu():
    loss = LearnableConsistency(6)
    u = torch.randn(4, 6)
    assert loss.weight.shape == loss.bias.shape == (10, 6)
    assert torch.equal(loss(u), F.relu(u))
    assert torch.equal(loss.loss(torch.zeros(4, 6), u), F.relu(u).square().mean())


def test_the_loss_by_hand():
    """ReLU(2 * 3 + 1) = 7 and ReLU(2 * -3 + 1) = 0, and the last map, without ReLU, makes -7 + 2 and 0 + 2 of them."""
    loss = LearnableConsistency(1, depth=2)
    with torch.no_grad():
        loss.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        loss.bias.copy_(torch.tensor([[1.0], [2.0]]))
    assert torch.equal(loss(torch.tensor([[3.0], [-3.0]])), torch.tensor([[-5.0], [2.0]]))
    assert loss.loss(torch.zeros(2, 1), torch.tensor([[3.0], [-3.0]])).item() == (25 + 4) / 2


@pytest.mark.parametrize("arguments", [(0,), (4, 0)])
def test_a_loss_without_numbers_is_refused(arguments):
    with pytest.raises(InputError, match="need both >= 1"):
        LearnableConsistency(*arguments)


def test_maps_start_as_the_identity_and_go_back_to_it():
    maps = AffineMaps([(3, 4, 4), (5,)], [True, False])
    after_relu, any_sign = torch.rand(2, 3, 4, 4), torch.randn(2, 7, 5)
    assert torch.equal(maps(0, after_relu), after_relu)
    assert torch.equal(maps(1, any_sign), any_sign)
    assert not torch.equal(AffineMaps([(5,)], [True])(0, any_sign), any_sign)
    addresses = [p.data_ptr() for p in maps.parameters()]
    with torch.no_grad():
        for parameter in maps.parameters():
            parameter.add_(0.1)
    assert not torch.equal(maps(0, after_relu), after_relu)
    maps.reset()
    assert torch.equal(maps(0, after_relu), after_relu)
    assert [p.data_ptr() for p in maps.parameters()] == addresses
    assert sum(p.numel() for p in maps.parameters()) == 2 * 5 * (3 * 4 * 4 + 5)


def test_shape_of_parameters():
    assert parameter_shape([3, 4, 5], "full") == [3, 4, 5]
    assert parameter_shape([3, 4, 5], "channel") == [3, 1, 1]
    assert parameter_shape([7, 5], "channel") == [5]
    assert parameter_shape([5], "channel") == [5]


def test_the_bank_keeps_the_newest_styles():
    bank, images = StyleBank([2, 3], size=4), torch.randn(6, 2, 3, 3)
    assert len(bank) == 0
    bank.add(0, images[:3])
    assert len(bank) == 0, "styles after the other block are missing"
    bank.add(0, images[3:])
    bank.add(1, torch.randn(6, 5, 3))
    assert len(bank) == 4
    mean, std = style(images)
    kept_mean, kept_std = bank.styles(0, torch.tensor([0, 1, 2, 3]))
    order = [4, 5, 2, 3]
    assert torch.equal(kept_mean, mean.flatten(1)[order])
    assert torch.equal(kept_std, std.flatten(1)[order])


def test_a_batch_larger_than_the_bank():
    bank, images = StyleBank([2], size=4), torch.randn(7, 2, 3, 3)
    bank.add(0, images)
    assert len(bank) == 4
    assert torch.equal(bank.styles(0, torch.arange(4))[0].sum(dim=0), style(images[3:])[0].flatten(1).sum(dim=0))


def test_draws_depend_on_the_seed_alone():
    torch.manual_seed(0)
    one = StyleDraw.make((0, 5), 8, 2, 0.1, CPU)
    before = torch.get_rng_state()
    again, other = StyleDraw.make((0, 5), 8, 2, 0.1, CPU), StyleDraw.make((0, 6), 8, 2, 0.1, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert one.block == again.block
    assert torch.equal(one.share, again.share)
    assert torch.equal(one.other, again.other)
    assert not torch.equal(one.share, other.share)
    assert sorted(one.other.tolist()) == list(range(8))


def test_draws_are_fair_and_beta():
    draws = [StyleDraw.make((0, n), 50, 2, 0.1, CPU, bank=3) for n in range(200)]
    assert 70 <= sum(draw.block for draw in draws) <= 130
    share = torch.cat([draw.share for draw in draws])
    assert share.mean().item() == pytest.approx(0.5, abs=0.02)
    assert share.var().item() == pytest.approx(0.25 / 1.2, abs=0.01), "the variance of Beta(a, a) is 1 / (8 a + 4)"
    assert set(torch.cat([draw.other for draw in draws]).tolist()) == {0, 1, 2}


@pytest.fixture
def network():
    return models.CifarResNet(8, norm="group")


def test_outputs_are_changed_within_the_context_only(network):
    x = torch.rand(2, 3, 16, 16)
    before = network(x)
    with changed_outputs(network, {"layer3": torch.zeros_like}):
        assert torch.equal(network(x), network.linear.bias.expand(2, -1))
    assert torch.equal(network(x), before)
    assert not any(module._forward_hooks for module in network.modules())
    with pytest.raises(ZeroDivisionError), changed_outputs(network, {"layer3": lambda x: x / (1 // 0)}):
        network(x)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_block_must_give_a_tensor(network):
    lstm = nn.LSTM(3, 3)
    with (
        pytest.raises(InputError, match="block 'lstm' gives a tuple"),
        changed_outputs(nn.ModuleDict({"lstm": lstm}), {"lstm": lambda x: x}),
    ):
        lstm(torch.rand(2, 1, 3))


def test_an_unknown_block_is_told_with_candidates(network):
    with pytest.raises(
        InputError, match=r"blocks: 'layer9' is no block of CifarResNet; candidates are .*layer1"
    ) as told:
        check_blocks(network, ["layer1", "layer9"], "blocks")
    assert "\n" not in str(told.value)
    for names in ([], ["layer1", "layer1"]):
        with pytest.raises(InputError, match="name at least one block, each once"):
            check_blocks(network, names, "blocks")


def test_shapes_come_from_a_dry_run_that_leaves_no_trace(network):
    network.train()
    network.layer1.eval()
    state = torch.get_rng_state()
    assert shapes_after(network, ["layer1", "layer3", "linear"], (3, 16, 16)) == {
        "layer1": ([16, 16, 16], True),
        "layer3": ([64, 4, 4], True),
        "linear": ([10], False),
    }
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert not network.layer1.training
    with pytest.raises(InputError, match=r"input_shape=\[2, 16, 16\]: the backbone cannot take it"):
        shapes_after(network, ["layer1"], (2, 16, 16))


def test_a_block_that_does_not_run_is_told(network):
    network.spare = nn.Linear(2, 2)
    with pytest.raises(InputError, match="'spare' does not run"):
        shapes_after(network, ["spare"], (3, 16, 16))
