"""ROID: two steps against a plain computation; batches of one and identical samples; skipped steps."""

import copy

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.adapters import ROID
from tta.monitor import CostMeter
from tta.online import TorchUpdater


@pytest.fixture
def toy() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.LayerNorm(6), nn.Linear(6, 3))


def darker(image: Tensor) -> Tensor:
    return image / 2


def scaled(values: Tensor) -> Tensor:
    return (values - values.min()) / (values.max() - values.min())


class PlainROID:
    """The published step on explicit tensors. Shares no code with the library."""

    def __init__(self, model: nn.Sequential, lr: float) -> None:
        self.model, self.lr = model, lr
        self.source = {"2.weight": model[2].weight.detach().clone(), "2.bias": model[2].bias.detach().clone()}
        self.theta = dict(self.source)
        self.mean = torch.full((3,), 1 / 3)

    def step(self, x: Tensor) -> Tensor:
        theta = {name: value.clone().requires_grad_() for name, value in self.theta.items()}
        z = torch.func.functional_call(self.model, theta, (x,))
        with torch.no_grad():
            p = z.softmax(1)
            d = scaled(1 - (p @ self.mean) / (p.norm(dim=1) * self.mean.norm()))
            c = scaled((p * p.log()).sum(1))
            w = torch.exp(3 * d * c)
        self.kept = d >= d.mean()
        seen = z[self.kept]
        viewed = torch.func.functional_call(self.model, theta, (x[self.kept] / 2,))
        q = seen.softmax(1).clamp(max=0.99)
        ratio = -(q * torch.log(q / (1 - q) + 1e-5)).sum(1)
        symmetric = -0.5 * (seen.softmax(1) * viewed.log_softmax(1) + viewed.softmax(1) * seen.log_softmax(1)).sum(1)
        self.loss = (w[self.kept] * (ratio + symmetric)).sum() / len(x)
        gradients = torch.autograd.grad(self.loss, list(theta.values()))
        for (name, value), gradient in zip(self.theta.items(), gradients, strict=True):
            self.theta[name] = self.averaged(name, value - self.lr * gradient)
        self.mean = 0.9 * self.mean + 0.1 * p.mean(0)
        prior = p.mean(0)
        s = max(1 / len(x), 1 / 3) / prior.max()
        return z.detach() * (prior + s) / (1 + 3 * s)

    def averaged(self, name: str, value: Tensor) -> Tensor:
        return 0.99 * value + 0.01 * self.source[name]


def test_whole_steps_equal_a_plain_computation(toy):
    start = copy.deepcopy(toy)
    plain = PlainROID(start, lr=0.3)
    online = tta.online(toy, ROID(views=darker), lr=0.3, momentum=0.0)
    for x in torch.rand(3, 8, 3, 4, 4):
        expected = plain.step(x)
        torch.testing.assert_close(online(x), expected)
        torch.testing.assert_close(online.last.loss, plain.loss.detach())
        assert torch.equal(online.last.reliable, plain.kept)
        assert 0 < plain.kept.sum() < 8
        torch.testing.assert_close(online.adapter.mean_prediction, plain.mean)
        for name, value in plain.theta.items():
            torch.testing.assert_close(toy.get_parameter(name).detach(), value)
    assert (plain.theta["2.weight"] - start[2].weight).abs().max() > 0.01


@pytest.mark.parametrize("count", [1, 4])
def test_one_sample_and_identical_ones_all_teach(toy, count):
    """Where the published code gives NaN. Views of all are what the declared passes are the bound of."""
    start = copy.deepcopy(toy)
    online, meter = tta.online(toy, ROID(views=darker), lr=0.3), CostMeter(toy)
    x = torch.rand(1, 3, 4, 4).expand(count, 3, 4, 4)
    logits = online(x)
    assert logits.isfinite().all()
    assert online.last.reliable.all()
    assert (meter.forwards, meter.backwards) == (2 * count, 2 * count)
    assert all(p.isfinite().all() for p in toy.parameters())
    assert not torch.equal(toy[2].weight, start[2].weight)
    z, viewed = start(x), start(x / 2)
    q = z.softmax(1).clamp(max=0.99)
    ratio = -(q * torch.log(q / (1 - q) + 1e-5)).sum(1)
    symmetric = -0.5 * (z.softmax(1) * viewed.log_softmax(1) + viewed.softmax(1) * z.log_softmax(1)).sum(1)
    torch.testing.assert_close(online.last.loss, (ratio + symmetric).mean().detach(), rtol=1e-4, atol=1e-5)


def test_a_single_diverse_sample_has_a_view_where_its_statistics_would_fail():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    online = tta.online(model, ROID(views=darker), lr=0.3)
    online(torch.rand(2, 3, 4, 4))
    assert online.last.reliable.sum() == 1
    assert online.last.loss.isfinite()


def test_a_skipped_step_moves_neither_weights_nor_mean_prediction(toy):
    online = tta.online(toy, ROID(views=darker), lr=0.3)
    online(torch.rand(8, 3, 4, 4))
    weight, mean = toy[2].weight.detach().clone(), online.adapter.mean_prediction.clone()
    handle = toy[2].weight.register_hook(lambda gradient: gradient * torch.nan)
    online(torch.rand(8, 3, 4, 4))
    handle.remove()
    assert online.updater.skipped_steps == 1
    assert torch.equal(toy[2].weight, weight)
    assert torch.equal(online.adapter.mean_prediction, mean)


class SecondProcess(TorchUpdater):
    """An updater whose other process has learnt from two samples, both of its batch, of this sum of predictions."""

    def any(self, flag: bool) -> bool:
        return True

    def mean(self, value: Tensor) -> Tensor:
        theirs = torch.tensor([0.2, 0.8, 1.0, 2.0]) if len(value) == 4 else torch.tensor([2.0, 2.0])
        return (value + theirs) / 2


def test_a_process_without_finite_images_keeps_step_with_the_others(toy):
    online = tta.online(toy, ROID(views=darker, momentum_source=0.5), lr=0.3, momentum=0.0)
    online(torch.rand(8, 3, 4, 4))
    weight, mean = toy[2].weight.detach().clone(), online.adapter.mean_prediction.clone()
    source = online.adapter.source.values()["2.weight"]
    online.updater = SecondProcess(online.optimizer)
    online(torch.full((2, 3, 4, 4), torch.nan))
    torch.testing.assert_close(toy[2].weight.detach(), (weight + source) / 2)
    torch.testing.assert_close(online.adapter.mean_prediction, 0.9 * mean + 0.1 * torch.tensor([0.1, 0.4, 0.5]))
    assert int(online.adapter.draws) == 2


def test_momentum_of_zero_is_the_source_after_every_step(toy):
    start = copy.deepcopy(toy.state_dict())
    online = tta.online(toy, ROID(momentum_source=0.0, views=darker), lr=0.3)
    online(torch.rand(8, 3, 4, 4))
    assert all(torch.equal(value, start[name]) for name, value in toy.state_dict().items())


def test_prediction_without_learning_is_corrected_too(toy):
    x = torch.rand(8, 3, 4, 4)
    corrected, plain = tta.online(toy, ROID()), tta.online(copy.deepcopy(toy), ROID(prior_correction=False))
    p = toy(x).softmax(1).mean(0)
    s = (1 / 3) / p.max()
    expected = toy(x) * (p + s) / (1 + 3 * s)
    torch.testing.assert_close(corrected.adapter.predict(toy, x), expected.detach())
    assert torch.equal(plain.adapter.predict(plain.model, x), toy(x).detach())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0: need temperature > 0"),
        ({"momentum_source": 1.5}, "momentum_source=1.5: need 0 <= momentum_source <= 1"),
        ({"momentum_probabilities": -0.1}, "momentum_probabilities=-0.1: need 0 <= momentum_prob"),
        ({"seed": -1}, "seed=-1: need seed >= 0"),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(tta.InputError, match=message):
        ROID(**arguments)
