import copy

import pytest
import torch
from torch import nn

import tta
from tta.monitor import CostMeter, FrozenSource, peak_memory_mb
from tta.snapshot import SourceSnapshot


@pytest.fixture
def toy() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def test_samples_are_counted_where_they_pass(toy):
    meter = CostMeter(toy)
    toy(torch.randn(6, 5)).sum().backward()
    assert (meter.forwards, meter.backwards) == (6, 6)
    with torch.no_grad():
        toy(torch.randn(4, 5))
    assert (meter.forwards, meter.backwards) == (10, 6)
    toy(torch.randn(3, 5))
    assert (meter.forwards, meter.backwards) == (13, 6)


def test_a_masked_loss_sends_the_whole_batch_back(toy):
    meter = CostMeter(toy)
    logits = toy(torch.randn(6, 5))
    (logits * torch.tensor([[1.0], [0], [0], [0], [0], [0]])).sum().backward()
    assert meter.backwards == 6
    toy(torch.randn(6, 5))[:2].sum().backward()
    assert meter.backwards == 12


def test_two_passes_back_through_one_graph_count_twice(toy):
    meter = CostMeter(toy)
    loss = toy(torch.randn(6, 5)).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert (meter.forwards, meter.backwards) == (6, 12)


def test_detached_meter_counts_no_more(toy):
    meter = CostMeter(toy)
    meter.detach()
    toy(torch.randn(6, 5)).sum().backward()
    assert (meter.forwards, meter.backwards) == (0, 0)
    assert not toy._forward_hooks


def test_peak_memory_is_that_of_this_process():
    before = peak_memory_mb(torch.device("cpu"))
    held = torch.ones(2**20 * 25)  # 100 MiB
    after = peak_memory_mb(torch.device("cpu"))
    assert 50 < before <= after < 10**6
    assert held.sum() == 2**20 * 25


# ---- frozen source ---------------------------------------------------------------------------------------------------


def test_frozen_source_stays_while_the_model_adapts(trained, stream):
    model = trained("bn")
    reference = copy.deepcopy(model)
    online = tta.online(model, "tent", lr=0.1)
    frozen = FrozenSource(online.model)
    for x in stream[:3]:
        online(x)
        assert torch.equal(frozen(x), reference(x).detach())
    assert not torch.equal(online.adapter.predict(model, stream[0]), frozen(stream[0]))


def test_frozen_source_holds_nothing_but_the_source_values(trained, stream):
    """Its parameters and buffers are the model's own, and stay so and as they are when it predicts."""
    model = trained("bn")
    tta.online(model, "sar")
    wanted = {name: (p.requires_grad, p.clone()) for name, p in model.named_parameters()}
    source = SourceSnapshot(model)
    frozen = FrozenSource(model, source)
    assert frozen.source is source
    for _ in range(2):
        tensors = [[*network.parameters(), *network.buffers()] for network in (model, frozen.model)]
        assert all(mine is theirs for mine, theirs in zip(*tensors, strict=True))
        assert all(p.requires_grad == wanted[name][0] for name, p in model.named_parameters())
        assert all(torch.equal(p, wanted[name][1]) for name, p in model.named_parameters())
        frozen(stream[0])


def test_frozen_source_ignores_batch_statistics_and_dropout(toy):
    model = nn.Sequential(toy, nn.Dropout(0.5))
    source = copy.deepcopy(model).eval()
    tta.online(model, "bn_stats")
    model.train()
    frozen = FrozenSource(model)
    x = torch.randn(6, 5) + 2
    assert torch.equal(frozen(x), source(x).detach())
    assert torch.equal(frozen(x[:1]), frozen(x)[:1])
    assert model[1].training


def test_frozen_source_takes_non_finite_pixels_as_zero(toy):
    frozen = FrozenSource(toy)
    x = torch.randn(3, 5)
    x[1, 2] = torch.nan
    zeroed = x.clone()
    zeroed[1, 2] = 0.0
    assert torch.equal(frozen(x), frozen(zeroed))
    assert not frozen(x).requires_grad
