"""CMF: the filter by hand over three steps, its bounds, and its reset."""

import copy

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.adapters import CMF


@pytest.fixture
def toy() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.LayerNorm(6), nn.Linear(6, 3))


def darker(image: Tensor) -> Tensor:
    return image / 2


def test_filter_by_hand_over_three_steps(toy):
    """Noise of .1 for the 12 adapted numbers: shares kept of .9, then .89 (the bound), and none above."""
    source = toy[2].weight.detach().clone()
    online = tta.online(toy, CMF(q=0.05 * 38400 / 12, views=darker), lr=0.3, momentum=0.0)
    hidden, variance, shares = source.clone(), 0.0, []
    stepped: list[Tensor] = []
    online.optimizer.register_step_post_hook(lambda *_: stepped.append(toy[2].weight.detach().clone()))
    for x in torch.rand(3, 8, 3, 4, 4):
        online(x)
        hidden = 0.99 * hidden + 0.01 * source
        variance = 0.99**2 * variance + 0.05
        share = max(0.95 / (variance + 0.95), 0.89)
        variance *= share
        shares.append(share)
        hidden = share * hidden + (1 - share) * stepped[-1]
        torch.testing.assert_close(toy[2].weight.detach(), 0.99 * stepped[-1] + 0.01 * hidden)
        torch.testing.assert_close(online.adapter.hidden.values()["2.weight"], hidden)
        assert float(online.adapter.hidden_variance) == pytest.approx(variance, rel=1e-5)
    assert shares == pytest.approx([0.95, 0.95 / (0.0475 * 0.99**2 + 0.05 + 0.95), 0.89], abs=1e-4)
    assert (hidden - source).abs().max() > 0.01


def test_loss_weights_and_correction_are_those_of_roid(toy):
    x = torch.rand(8, 3, 4, 4)
    cmf, roid = (tta.online(copy.deepcopy(toy), name, views=darker, lr=0.3) for name in ("cmf", "roid"))
    assert torch.equal(cmf(x), roid(x))
    assert torch.equal(cmf.last.loss, roid.last.loss)
    assert torch.equal(cmf.last.reliable, roid.last.reliable)


def test_published_noise_of_a_small_network_leaves_the_hidden_weights_at_the_source(toy):
    """12 numbers of 38,400: the share kept is above .9999, so 1."""
    source = toy[2].weight.detach().clone()
    online = tta.online(toy, CMF(views=darker), lr=0.3)
    online(torch.rand(8, 3, 4, 4))
    assert torch.equal(online.adapter.hidden.values()["2.weight"], source)
    assert not torch.equal(toy[2].weight, source)
    assert float(online.adapter.hidden_variance) == pytest.approx(0.005 * 12 / 38400)


def test_reset_brings_hidden_weights_and_variance_back(toy):
    source = toy[2].weight.detach().clone()
    online = tta.online(toy, CMF(q=200.0, views=darker), lr=0.3)
    online(torch.rand(8, 3, 4, 4))
    assert not torch.equal(online.adapter.hidden.values()["2.weight"], source)
    online.reset()
    assert torch.equal(online.adapter.hidden.values()["2.weight"], source)
    assert float(online.adapter.hidden_variance) == 0.0


def test_a_skipped_step_leaves_the_filter_alone(toy):
    online = tta.online(toy, CMF(q=200.0, views=darker), lr=0.3)
    toy[2].weight.register_hook(lambda gradient: gradient * torch.nan)
    before = toy[2].weight.detach().clone()
    online(torch.rand(8, 3, 4, 4))
    assert online.updater.skipped_steps == 1
    assert torch.equal(online.adapter.hidden.values()["2.weight"], before)
    assert float(online.adapter.hidden_variance) == 0.0


@pytest.mark.parametrize("count", [1, 4])
def test_one_sample_and_identical_ones_stay_finite(toy, count):
    online = tta.online(toy, CMF(q=200.0), lr=0.3)
    for _ in range(3):
        assert online(torch.rand(1, 3, 4, 4).expand(count, 3, 4, 4)).isfinite().all()
    assert all(p.isfinite().all() for p in toy.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"q": 0.0}, "q=0.0: need q > 0"),
        ({"alpha": 2.0}, "alpha=2.0: need 0 <= alpha <= 1"),
        ({"gamma": -1.0}, "gamma=-1.0: need 0 <= gamma <= 1"),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(tta.InputError, match=message):
        CMF(**arguments)
