"""RoTTA against a plain re-computation of its update, and when it updates."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.monitor import CostMeter
from tta.online import TorchUpdater

ALPHA, NU, LR = 0.2, 0.1, 0.1


def half(image: Tensor) -> Tensor:
    return image * 0.5


@pytest.fixture
def toy() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))
    model[1].running_mean.uniform_()
    return model


@pytest.fixture
def layer_norm_toy() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(24, 5, generator=torch.Generator().manual_seed(1))


def adapted(model: nn.Module, **arguments: Any) -> tta.OnlineModel:
    usual = {"alpha": ALPHA, "nu": NU, "capacity": 4, "update_every": 4, "views": half}
    adapter = tta.adapters.RoTTA(**{**usual, **arguments})
    return tta.OnlineModel(copy.deepcopy(model), adapter, lambda parameters: torch.optim.SGD(parameters, lr=LR))


Norm = dict[str, Tensor]
"""Mean, variance, weight and bias of the batch normalisation of the toy."""


def norm_of(model: nn.Sequential) -> Norm:
    norm = model[1]
    return {
        "mean": norm.running_mean.clone(),
        "variance": norm.running_var.clone(),
        "weight": norm.weight.detach().clone(),
        "bias": norm.bias.detach().clone(),
    }


def plain_forward(model: nn.Sequential, norm: Norm, x: Tensor, alpha: float) -> Tensor:
    """The network by hand, its statistics moved by ``alpha``. Shares no code with the library."""
    x = x @ model[0].weight.detach().T + model[0].bias.detach()
    mean = (1 - alpha) * norm["mean"] + alpha * x.mean(0)
    variance = (1 - alpha) * norm["variance"] + alpha * x.var(0, unbiased=False)
    norm["mean"], norm["variance"] = mean.detach(), variance.detach()
    x = (x - mean) / (variance + model[1].eps).sqrt() * norm["weight"] + norm["bias"]
    return x.tanh() @ model[3].weight.detach().T + model[3].bias.detach()


def test_updates_equal_the_plain_ones(toy, images):
    online = adapted(toy)
    student, teacher = norm_of(toy), norm_of(toy)
    for x in images.split(4):
        expected = plain_forward(toy, teacher, x, 0.0)
        torch.testing.assert_close(online(x), expected)
        memory, ages = online.adapter.memory.contents()
        target = plain_forward(toy, teacher, memory, ALPHA)
        for name in ("weight", "bias"):
            student[name].requires_grad_()
        logits = plain_forward(toy, student, 0.5 * memory, ALPHA)
        loss = -(target.softmax(1) * logits.log_softmax(1)).sum(1) * (-ages).exp() / (1 + (-ages).exp())
        gradients = torch.autograd.grad(loss.mean(), [student["weight"], student["bias"]])
        torch.testing.assert_close(online.last.loss, loss.mean().detach())
        for name, gradient in zip(("weight", "bias"), gradients, strict=True):
            student[name] = (student[name] - LR * gradient).detach()
            teacher[name] = (1 - NU) * teacher[name] + NU * student[name]
        for name, value in norm_of(online.model).items():
            torch.testing.assert_close(value, student[name])
        held = online.adapter.teacher.values()
        for name, key in (
            ("mean", "running_mean"),
            ("variance", "running_var"),
            ("weight", "weight"),
            ("bias", "bias"),
        ):
            torch.testing.assert_close(held[f"1.{key}"], teacher[name])


def test_memory_gets_predicted_classes_entropies_and_ages(toy, images):
    online = adapted(toy, capacity=30, update_every=100)
    logits = online(images[:5])
    memory, ages = online.adapter.memory.contents()
    p = logits.softmax(1)
    entropies = -(p * p.log()).sum(1)
    order = sorted(range(5), key=lambda row: (int(logits[row].argmax()), row))
    assert torch.equal(memory, images[order])
    torch.testing.assert_close(ages * 30, 5.0 - torch.tensor(order))
    torch.testing.assert_close(online.adapter.memory.uncertainties[:5], entropies)


class Counting(TorchUpdater):
    steps = 0

    def optimizer_step(self) -> None:
        self.steps += 1
        super().optimizer_step()


def counted(online: tta.OnlineModel) -> Counting:
    online.updater = Counting(online.optimizer)
    return online.updater


def test_samples_are_counted_one_by_one(toy, images):
    online = adapted(toy)
    updates = counted(online)
    counts = []
    for size in (3, 2, 10, 1):
        online(images[:size])
        counts.append(updates.steps)
    assert counts == [0, 1, 3, 4]
    assert [online.last.loss is None, len(online.adapter.memory.contents()[0])] == [False, 4]


def test_batches_of_one_fill_the_memory_as_one_batch_does(layer_norm_toy, images):
    whole, single = (adapted(layer_norm_toy, update_every=24, capacity=8) for _ in range(2))
    whole(images[:23])
    for image in images[:23]:
        single(image[None])
    for ours, theirs in zip(whole.adapter.memory.buffers(), single.adapter.memory.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)
    before = [p.detach().clone() for p in single.model.parameters()]
    single(images[23:])
    assert not all(torch.equal(old, new) for old, new in zip(before, single.model.parameters(), strict=True))


def test_batch_is_predicted_before_its_own_updates(toy, images):
    assert torch.equal(adapted(toy)(images), adapted(toy, update_every=100)(images))


def test_layers_other_than_batch_normalisation_train_too(layer_norm_toy, images):
    online = adapted(layer_norm_toy)
    online(images[:4])
    before = dict(layer_norm_toy.named_parameters())
    changed = {name for name, value in online.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"1.weight", "1.bias"}


def test_skipped_step_leaves_weights_and_statistics_of_student_and_teacher(toy, images):
    online = adapted(toy)
    online(images[:4])
    tensors = [*online.model.state_dict().values(), *online.adapter.teacher.values().values()]
    before = [tensor.clone() for tensor in tensors]
    updates = counted(online)
    updates.step = lambda: updates.discard() or False
    online(images[4:8])
    assert all(torch.equal(old, new) for old, new in zip(before, tensors, strict=True))


class Overflowing(nn.Module):
    """Logits that are not finite for images that are brighter than any."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.where(x.abs().amax(dim=1, keepdim=True) > 100.0, torch.inf, 0.0)


def test_a_sample_whose_logits_overflow_is_counted_and_not_remembered(layer_norm_toy, images):
    model = nn.Sequential(Overflowing(), layer_norm_toy)
    online = adapted(model)
    spoilt = torch.full((1, 5), 1000.0)
    online(torch.cat([spoilt, images[:3]]))
    assert online.updater.skipped_steps == 0
    assert torch.isfinite(online.last.loss)
    assert 0 < len(online.adapter.memory.contents()[0]) < 4
    online.reset()
    for _ in range(4):
        online(spoilt)
    assert online.last.loss is None
    assert not online.adapter.memory.filled
    online(images[:4])
    assert torch.isfinite(online.last.loss)


def test_another_image_size_is_refused_and_changes_nothing(images):
    model = nn.Sequential(nn.AdaptiveAvgPool1d(5), nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    online = adapted(model)
    online(images[:3])
    before = [buffer.clone() for buffer in online.adapter.buffers()]
    with pytest.raises(tta.InputError, match=r"holds images of shape \(5,\) and got \(7,\)"):
        online(torch.rand(3, 7))
    assert all(torch.equal(old, new) for old, new in zip(before, online.adapter.buffers(), strict=True))
    online.reset()
    assert torch.isfinite(online(torch.rand(5, 7))).all()


def test_figures_of_the_memory(toy, images):
    online = adapted(toy)
    logits = online(images[:3])
    scalars = online.last.scalars
    assert int(scalars["memory_samples"]) == len(online.adapter.memory.contents()[0])
    assert int(scalars["memory_classes"]) == len(logits.argmax(1).unique())


def test_declared_costs_are_those_of_a_full_memory():
    """Of six places, two for each of three classes, which are predicted in turn."""
    online = adapted(nn.Sequential(nn.LayerNorm(3)), capacity=6, update_every=3)
    facts, meter = online.adapter.facts, CostMeter(online.model)
    costs = []
    for _ in range(3):
        meter.forwards = meter.backwards = 0
        online(torch.eye(3))
        costs.append((meter.forwards / 3, meter.backwards / 3))
    assert costs == [(3.0, 1.0), (5.0, 2.0), (5.0, 2.0)]
    assert (facts.forwards, facts.backwards) == (5, 2)


def test_facts_follow_from_the_arguments():
    make = tta.adapters.RoTTA
    facts = make().facts
    assert (facts.forwards, facts.backwards, facts.smallest_domain) == (3, 1, 64)
    facts = make(capacity=32, update_every=16).facts
    assert (facts.forwards, facts.backwards, facts.smallest_domain) == (5, 2, 16)


@pytest.mark.parametrize("argument", ["alpha", "nu", "capacity", "update_every", "lambda_t", "lambda_u", "seed"])
def test_values_out_of_range(argument):
    with pytest.raises(tta.InputError, match=argument):
        tta.adapters.RoTTA(**{argument: -1})
