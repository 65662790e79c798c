"""Batch normalisation statistics against explicit formulas, layer by layer."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

import tta
from tta.adapters import BNStats


@pytest.fixture
def two_layers() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5),
        nn.Flatten(),
        nn.Linear(80, 3),
    )
    with torch.no_grad():
        for layer in (model[1], model[4]):
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.uniform_(-0.5, 0.5)
            layer.running_mean.uniform_(-0.5, 0.5)
            layer.running_var.uniform_(0.5, 2.0)
    return model.eval()


def normalised(layer: nn.BatchNorm2d, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    shape = (1, -1, 1, 1)
    x = (x - mean.view(shape)) / (variance.view(shape) + layer.eps).sqrt()
    return x * layer.weight.view(shape) + layer.bias.view(shape)


def by_hand(
    model: nn.Sequential, x: Tensor, share: float, statistics: list[tuple[Tensor, Tensor]]
) -> tuple[Tensor, list]:
    """Logits under ``(1 - share) * statistics + share * batch``, and the mixtures; variance unbiased."""
    mixed = []
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.BatchNorm2d):
                mean, variance = statistics[len(mixed)]
                batch = x.transpose(0, 1).flatten(1)
                mean = (1 - share) * mean + share * batch.mean(1)
                variance = (1 - share) * variance + share * batch.var(1, unbiased=True)
                mixed.append((mean, variance))
                x = normalised(layer, x, mean, variance)
            else:
                x = layer(x)
    return x, mixed


def running(model: nn.Sequential) -> list[tuple[Tensor, Tensor]]:
    return [(model[n].running_mean.clone(), model[n].running_var.clone()) for n in (1, 4)]


def test_batch_alone_is_train_mode_normalisation_and_leaves_the_buffers(two_layers):
    x = torch.randn(6, 3, 8, 8)
    reference = copy.deepcopy(two_layers).train()
    before = copy.deepcopy(two_layers.state_dict())
    online = tta.online(two_layers, "bn_stats")
    torch.testing.assert_close(online(x), reference(x).detach())
    assert list(two_layers.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in two_layers.state_dict().items())
    assert not torch.equal(reference[1].running_mean, two_layers[1].running_mean)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_mixture_layer_by_layer(two_layers, share):
    batches = torch.randn(3, 6, 3, 8, 8) * 2 + 1
    source = running(two_layers)
    reference = copy.deepcopy(two_layers)
    online = tta.online(two_layers, "bn_stats", batch_weight=share)
    for x in batches:
        expected, _ = by_hand(reference, x, share, source)
        torch.testing.assert_close(online(x), expected, rtol=1e-4, atol=1e-4)
        assert (expected - reference(x)).abs().max() > 0.01
    for before, after in zip(source, running(two_layers), strict=True):
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_moving_average_layer_by_layer(two_layers, share):
    batches = torch.randn(4, 6, 3, 8, 8) * 2 + 1
    statistics = running(two_layers)
    reference = copy.deepcopy(two_layers)
    online = tta.online(two_layers, BNStats(share, accumulate=True))
    for x in batches:
        expected, statistics = by_hand(reference, x, share, statistics)
        torch.testing.assert_close(online(x), expected, rtol=1e-4, atol=1e-4)
        for (mean, variance), (got_mean, got_variance) in zip(statistics, running(two_layers), strict=True):
            torch.testing.assert_close(got_mean, mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(got_variance, variance, rtol=1e-4, atol=1e-5)


def test_share_of_a_source_prior(two_layers):
    """N source samples against n of the batch: a = n / (N + n); N = 0 is the batch alone, up to the variance's bias."""
    x = torch.randn(6, 3, 8, 8)
    nearly = tta.online(copy.deepcopy(two_layers), "bn_stats", batch_weight=6 / (1e-9 + 6) - 1e-9)(x)
    alone = tta.online(copy.deepcopy(two_layers), "bn_stats")(x)
    torch.testing.assert_close(nearly, alone, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("arguments", [{}, {"batch_weight": 0.3}, {"batch_weight": 0.3, "accumulate": True}])
def test_predict_changes_nothing_and_is_repeatable(two_layers, arguments):
    online = tta.online(two_layers, "bn_stats", **arguments)
    online(torch.randn(6, 3, 8, 8))
    before = copy.deepcopy(two_layers.state_dict())
    x = torch.randn(6, 3, 8, 8)
    first, second = (online.adapter.predict(two_layers, x) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in two_layers.state_dict().items())


def test_predict_with_a_moving_average_uses_it_as_it_is(two_layers):
    online = tta.online(two_layers, "bn_stats", batch_weight=0.3, accumulate=True)
    online(torch.randn(6, 3, 8, 8) + 2)
    x = torch.randn(6, 3, 8, 8)
    frozen = copy.deepcopy(two_layers).eval()
    assert torch.equal(online.adapter.predict(two_layers, x), frozen(x).detach())
    single = torch.cat([online.adapter.predict(two_layers, row[None]) for row in x])
    torch.testing.assert_close(single, frozen(x).detach())


@pytest.mark.parametrize("arguments", [{}, {"batch_weight": 0.3}, {"batch_weight": 0.3, "accumulate": True}])
def test_fused_activation_of_timm(arguments):
    """``BatchNormAct2d`` has its own forward, with the activation inside."""
    torch.manual_seed(1)
    fused = nn.Sequential(nn.Conv2d(3, 4, 3), BatchNormAct2d(4), nn.Flatten(), nn.Linear(144, 3)).eval()
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    plain[0].load_state_dict(fused[0].state_dict())
    plain[4].load_state_dict(fused[3].state_dict())
    one, other = tta.online(fused, "bn_stats", **arguments), tta.online(plain, "bn_stats", **arguments)
    source = copy.deepcopy(fused).eval()
    for x in torch.randn(3, 6, 3, 8, 8) + 1:
        torch.testing.assert_close(one(x), other(x))
        assert not torch.equal(one.last.logits, source(x))
    assert torch.equal(fused[1].running_mean, plain[1].running_mean)


@pytest.mark.parametrize("accumulate", [False, True])
def test_one_dimensional_layers(accumulate):
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
    x = torch.randn(8, 5)
    hidden = model[0](x).detach()
    mean, variance = 0.4 * hidden.mean(0), 0.6 + 0.4 * hidden.var(0)
    expected = model[2]((hidden - mean) / (variance + 1e-5).sqrt()).detach()
    online = tta.online(model, "bn_stats", batch_weight=0.4, accumulate=accumulate)
    torch.testing.assert_close(online(x), expected)
    torch.testing.assert_close(model[1].running_mean, mean if accumulate else torch.zeros(4))


def test_batch_of_one_at_a_single_value_per_channel_works_in_a_mixture():
    """The variance of one value is taken as zero."""
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)).eval()
    x = torch.randn(1, 5)
    hidden = model[0](x).detach()
    online = tta.online(model, "bn_stats", batch_weight=0.25)
    torch.testing.assert_close(online(x), (hidden - 0.25 * hidden) / (torch.tensor(0.75) + 1e-5).sqrt())
    with pytest.raises(tta.InputError, match="BNStats with batch_weight below 1"):
        tta.online(model, "bn_stats")(x)


def test_reset_goes_back_to_the_source_statistics(two_layers):
    source = running(two_layers)
    online = tta.online(two_layers, "bn_stats", batch_weight=0.5, accumulate=True)
    online(torch.randn(6, 3, 8, 8) + 3)
    assert (running(two_layers)[0][0] - source[0][0]).abs().max() > 0.1
    online.reset()
    assert torch.equal(running(two_layers)[0][0], source[0][0])
    assert torch.equal(running(two_layers)[1][1], source[1][1])


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_share_out_of_range(share):
    with pytest.raises(tta.InputError, match="need 0 < batch_weight <= 1"):
        BNStats(share)
