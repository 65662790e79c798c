"""Tent's step against an explicit computation."""

import copy

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.adapters import Select, Tent


@pytest.fixture
def toy() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3))


def entropy_gradient(model: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    """d(mean entropy)/d(weight, bias) of the LayerNorm, by hand: dH/dz_k = -p_k (ln p_k + H)."""
    with torch.no_grad():
        first, norm, last = model
        hidden = first(x)
        hidden = (hidden - hidden.mean(1, keepdim=True)) / (
            hidden.var(1, unbiased=False, keepdim=True) + norm.eps
        ).sqrt()
        p = last(norm.weight * hidden + norm.bias).softmax(1)
        entropy = -(p * p.log()).sum(1, keepdim=True)
        outer = (-p * (p.log() + entropy)) @ last.weight / len(x)
        return (outer * hidden).sum(0), outer.sum(0)


def test_one_step_is_gradient_descent_on_the_mean_entropy(toy):
    x = torch.randn(7, 5)
    start = copy.deepcopy(toy)
    weight, bias = entropy_gradient(toy, x)
    online = tta.online(toy, "tent", lr=0.5, momentum=0.0)
    assert torch.equal(online(x), start(x).detach())
    torch.testing.assert_close(toy[1].weight, start[1].weight - 0.5 * weight)
    torch.testing.assert_close(toy[1].bias, start[1].bias - 0.5 * bias)
    assert (toy[1].weight - start[1].weight).abs().max() > 1e-3
    p = start(x).softmax(1)
    torch.testing.assert_close(online.last.loss, -(p * p.log()).sum(1).mean().detach())


def test_momentum_accumulates_as_in_sgd(toy):
    x, y = torch.randn(2, 7, 5)
    start = copy.deepcopy(toy)
    first, _ = entropy_gradient(toy, x)
    online = tta.online(toy, "tent", lr=0.5, momentum=0.9)
    online(x)
    second, _ = entropy_gradient(toy, y)
    online(y)
    torch.testing.assert_close(toy[1].weight, start[1].weight - 0.5 * (first + 0.9 * first + second))


def test_entropy_of_a_repeated_batch_falls(toy):
    x = torch.randn(7, 5)
    online = tta.online(toy, "tent", lr=0.1)
    losses = []
    for _ in range(10):
        online(x)
        losses.append(float(online.last.loss))
    assert losses == sorted(losses, reverse=True)


def test_batch_normalisation_uses_the_batch_and_keeps_running_statistics(build, trained, stream):
    online = build("tent", "bn", lr=0.0)
    reference = trained("bn").train()
    reference.requires_grad_(False)
    torch.testing.assert_close(online(stream[0]), reference(stream[0]), rtol=1e-5, atol=1e-5)
    assert torch.equal(online.model.conv1[1].running_mean, trained("bn").conv1[1].running_mean)


def test_selection_decides_what_adapts(toy):
    before = copy.deepcopy(toy.state_dict())
    tta.online(toy, Tent(select=Select(types=["linear"], start=0.5)), lr=0.5)(torch.randn(7, 5))
    changed = {name for name, value in toy.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"2.weight", "2.bias"}


def test_steps_inside_one_autocast_block_are_seen_by_the_next_forward(toy):
    """Autocast keeps the bf16 cast of a weight; steps change weights in place and must not meet an old cast."""
    x = torch.randn(7, 5)
    online = tta.online(toy, Tent(select=Select(types=["linear"])), lr=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.is_autocast_cache_enabled()
        first, second = online(x), online(x)
        assert torch.is_autocast_cache_enabled()
        predicted = online.adapter.predict(online.model, x)
    assert (first - second).abs().max() > 0.02
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(online.adapter.predict(online.model, x), predicted)
