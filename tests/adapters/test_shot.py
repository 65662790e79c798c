"""SHOT's loss and steps against explicit computations."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.adapters import SHOT


@pytest.fixture
def toy() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))


def plain_loss(logits: Tensor, weight: float, confidence: float) -> Tensor:
    """Sample by sample and class by class."""
    p = [row.softmax(dim=0) for row in logits]
    loss = sum(-(row[k] * row[k].log()) for row in p for k in range(3)) / len(p)
    for k in range(3):
        mean = sum(row[k] for row in p) / len(p)
        loss = loss + mean * (mean + 1e-5).log()
    confident = [-row.max().log() for row in p if float(row.detach().max()) > confidence]
    return loss + weight * sum(confident) / len(confident) if confident else loss


def stepped(model: nn.Sequential, x: Tensor, lr: float, **of_loss: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and parameters after a step of plain gradient descent on all but the last layer."""
    loss = plain_loss(model(x), **of_loss)
    names = [name for name, _ in model.named_parameters() if not name.startswith("3.")]
    gradients = torch.autograd.grad(loss, [model.get_parameter(name) for name in names])
    after = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for name, gradient in zip(names, gradients, strict=True):
        after[name] -= lr * gradient
    return loss.detach(), after


@pytest.mark.parametrize("confidence", [0.4, 0.9999])
def test_one_step_is_gradient_descent_below_the_head(toy, confidence):
    x = 3 * torch.randn(8, 5)
    toy.eval()
    with torch.no_grad():
        probabilities = toy(x).softmax(dim=1).max(dim=1).values
    assert (probabilities > 0.4).any()
    assert not (probabilities > 0.9999).any()
    loss, after = stepped(copy.deepcopy(toy), x, lr=0.5, weight=0.3, confidence=confidence)
    start = copy.deepcopy(toy)
    online = tta.online(toy, "shot", pseudo_label_weight=0.3, confidence=confidence, lr=0.5, momentum=0.0)
    assert torch.equal(online(x), start(x).detach())
    torch.testing.assert_close(online.last.loss, loss)
    for name, parameter in toy.named_parameters():
        torch.testing.assert_close(parameter.detach(), after[name])
        assert torch.equal(parameter, start.get_parameter(name)) == name.startswith("3.")
    assert torch.equal(toy[1].running_mean, start[1].running_mean)


def test_several_steps_on_a_batch_return_the_first_logits_and_loss(toy):
    x = 3 * torch.randn(8, 5)
    toy.eval()
    expected = copy.deepcopy(toy)
    first, _ = stepped(expected, x, lr=0.5, weight=0.1, confidence=0.9)
    logits = expected(x).detach()
    for _ in range(3):
        _, after = stepped(expected, x, lr=0.5, weight=0.1, confidence=0.9)
        expected.load_state_dict(after, strict=False)
    online = tta.online(toy, "shot", steps=3, lr=0.5, momentum=0.0)
    assert torch.equal(online(x), logits)
    torch.testing.assert_close(online.last.loss, first)
    for name, parameter in toy.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected.get_parameter(name).detach(), rtol=1e-4, atol=1e-5)
    facts = online.adapter.facts
    assert (facts.steps_per_batch, facts.forwards, facts.backwards) == (3, 3, 3)


def test_nobody_confident_is_the_loss_without_pseudo_labels(toy):
    x = torch.randn(6, 5)
    runs = []
    for weight in (0.0, 10.0):
        online = tta.online(copy.deepcopy(toy), "shot", pseudo_label_weight=weight, confidence=0.99, lr=0.1)
        online(x)
        assert torch.isfinite(online.last.loss)
        runs.append([online.last.loss, *online.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("confidence", [0.0, 0.9])
def test_a_batch_of_one_is_predicted_and_teaches_nothing(toy, confidence, flat):
    online = tta.online(toy, "shot", confidence=confidence, lr=0.5)
    online(torch.randn(6, 5))
    before = flat(online.state_dict())
    x = torch.randn(1, 5)
    expected = toy(x).detach()
    assert torch.equal(online(x), expected)
    assert online.last.loss is None
    assert flat(online.state_dict()) == before


@pytest.mark.parametrize("confidence", [0.0, 0.99])
def test_identical_samples_are_finite_and_teach_their_pseudo_label_alone(toy, confidence):
    x = torch.randn(1, 5).repeat(6, 1)
    label = int(toy.eval()(x[:1]).argmax())
    before = toy(x[:1]).softmax(dim=1)[0, label].detach()
    online = tta.online(toy, "shot", confidence=confidence, pseudo_label_weight=1.0, lr=0.1)
    online(x)
    assert torch.isfinite(online.last.loss)
    after = toy(x[:1]).softmax(dim=1)[0, label].detach()
    assert (after - before > 1e-3) == (confidence == 0.0)
    assert abs(float(after - before)) < 1e-4 or confidence == 0.0


def test_entropy_falls_and_diversity_stays_on_a_repeated_batch(toy):
    x = 2 * torch.randn(30, 5)
    online = tta.online(toy, "shot", lr=0.1)
    losses: list[float] = []
    for _ in range(40):
        online(x)
        losses.append(float(online.last.loss))
    assert losses[-1] < losses[0] - 0.1
    mean = online(x).softmax(dim=1).mean(dim=0)
    assert float(torch.special.entr(mean).sum()) > 0.8 * math.log(3)


class OneStepOnly:
    """An updater whose first step is skipped."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def any(self, flag: bool) -> bool:
        return flag

    def backward(self, loss: Tensor) -> None:
        self.calls.append("backward")

    def step(self) -> bool:
        self.calls.append("step")
        return False


def test_no_step_follows_one_that_was_skipped(toy):
    adapter, updater = SHOT(steps=3), OneStepOnly()
    adapter.prepare(toy)
    adapter(toy, torch.randn(4, 5), updater)
    assert updater.calls == ["backward", "step"]


class Elsewhere(OneStepOnly):
    """An updater of a process while another one learns; gives what this one contributes."""

    def any(self, flag: bool) -> bool:
        return True

    def backward(self, loss: Tensor) -> None:
        super().backward(loss)
        loss.backward()

    def step(self) -> bool:
        self.calls.append("step")
        return True


@pytest.mark.parametrize("way", ["one", "sits out"])
def test_a_process_without_a_lesson_contributes_exactly_zero(toy, way):
    adapter, updater = SHOT(steps=2), Elsewhere()
    adapter.prepare(toy)
    if way == "one":
        output: Any = adapter(toy, torch.randn(1, 5), updater)
        assert output.loss is None
    else:
        adapter(toy, torch.full((3, 5), float("nan")), updater)
    assert updater.calls == ["backward", "step"] * 2
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in adapter.trainable(toy))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pseudo_label_weight": -0.1}, "pseudo_label_weight=-0.1: need pseudo_label_weight >= 0"),
        ({"confidence": 1.0}, "confidence=1.0: need 0 <= confidence < 1"),
        ({"steps": 0}, "steps=0: need steps >= 1"),
    ],
)
def test_values_out_of_range_are_refused(arguments, message):
    with pytest.raises(tta.InputError, match=message):
        SHOT(**arguments)


def test_a_model_with_nothing_below_its_head_is_refused():
    with pytest.raises(tta.InputError, match="SHOT: Sequential has no parameter below its head"):
        tta.online(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), "shot")


def test_two_heads_beside_each_other_are_both_frozen():
    model = nn.ModuleDict({"body": nn.Linear(5, 4), "head": nn.Linear(4, 3), "head_dist": nn.Linear(4, 3)})
    SHOT().prepare(model)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        "body.weight",
        "body.bias",
    }
