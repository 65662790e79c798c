"""CoTTA against a plain re-computation of its step, and what it returns, keeps and restores."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.adapters import Select
from tta.online import TorchUpdater

LR, MOMENTUM = 0.1, 0.9


def half(image: Tensor) -> Tensor:
    return image * 0.5


@pytest.fixture
def toy() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3))


@pytest.fixture
def batches() -> list[Tensor]:
    return list(torch.rand(4, 6, 5, generator=torch.Generator().manual_seed(1)))


def adapted(model: nn.Module, **arguments: Any) -> tta.OnlineModel:
    usual = {"views": half, "views_count": 2, "threshold": 0.0, "lr": LR, "momentum": MOMENTUM, "restore": 0.0}
    return tta.online(copy.deepcopy(model), "cotta", **{**usual, **arguments})


def teacher_of(online: tta.OnlineModel) -> dict[str, Tensor]:
    return online.adapter.teacher.values()


class PlainCoTTA:
    """The published step on explicit tensors, with plain gradient descent. Shares no code with the library."""

    def __init__(self, model: nn.Module, symmetric: bool, threshold: float) -> None:
        self.model, self.symmetric, self.threshold = model, symmetric, threshold
        self.source = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.student, self.teacher = dict(self.source), dict(self.source)

    def run(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(self.model, weights, (x,))

    def step(self, x: Tensor) -> Tensor:
        confidence = self.run(self.source, x).softmax(1).max(1).values.mean()
        target = self.run(self.teacher, 0.5 * x if confidence < self.threshold else x).detach()
        student = {name: value.clone().requires_grad_() for name, value in self.student.items()}
        logits = self.run(student, x)
        loss = -(target.softmax(1) * logits.log_softmax(1)).sum(1)
        if self.symmetric:
            loss = 0.5 * loss - 0.5 * (logits.softmax(1) * target.log_softmax(1)).sum(1)
        gradients = torch.autograd.grad(loss.mean(), list(student.values()))
        for (name, value), gradient in zip(student.items(), gradients, strict=True):
            self.student[name] = (value - LR * gradient).detach()
            self.teacher[name] = MOMENTUM * self.teacher[name] + (1 - MOMENTUM) * self.student[name]
        return target


@pytest.mark.parametrize("loss", ["symmetric", "cross_entropy"])
@pytest.mark.parametrize("threshold", [0.0, 0.585, 2.0])
def test_steps_equal_the_plain_ones(toy, batches, loss, threshold):
    # Confidences lie on both sides of the middle threshold.
    plain = PlainCoTTA(toy, loss == "symmetric", threshold)
    plain_sgd = lambda parameters: torch.optim.SGD(parameters, lr=LR)  # noqa: E731
    adapter = tta.adapters.CoTTA(threshold, 0.0, MOMENTUM, loss, 2, half)
    online = tta.OnlineModel(copy.deepcopy(toy), adapter, plain_sgd)
    for x in batches:
        torch.testing.assert_close(online(x), plain.step(x))
        for name, value in online.model.named_parameters():
            torch.testing.assert_close(value.detach(), plain.student[name])
            torch.testing.assert_close(teacher_of(online)[name], plain.teacher[name])


def test_confidence_of_the_source_decides_on_views(toy, batches):
    """Of the unadapted model, whatever the student became; and of the mean, not of each image."""
    online = adapted(toy, threshold=0.0)
    online(batches[0])
    for x in batches[1:]:
        online(x)
        told = float(online.last.scalars["source_confidence"])
        assert told == pytest.approx(float(toy(x).detach().softmax(1).max(1).values.mean()), rel=1e-6)
        plain, viewed = (adapted(toy, threshold=told + step)(x) for step in (-1e-4, 1e-4))
        torch.testing.assert_close(plain, toy(x).detach())
        torch.testing.assert_close(viewed, toy(0.5 * x).detach())


def test_logits_of_views_are_averaged(toy, batches):
    seen: list[Tensor] = []

    def remembered(image: Tensor) -> Tensor:
        seen.append(image * torch.rand(()))
        return seen[-1]

    logits = adapted(toy, threshold=2.0, views=remembered, views_count=3)(batches[0])
    views = torch.stack(seen).view(3, 6, 5)
    assert not torch.allclose(views[0], views[1])
    torch.testing.assert_close(logits, torch.stack([toy(view) for view in views]).mean(0).detach())


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_the_student_goes_back_to_the_source(share):
    wide = nn.Sequential(nn.Linear(5, 400), nn.ReLU(), nn.Linear(400, 40))
    x = torch.rand(6, 5)
    kept, restored = adapted(wide, restore=0.0), adapted(wide, restore=share)
    kept(x)
    restored(x)
    back, moved, total = 0, 0, 0
    for name, source in wide.named_parameters():
        free, mixed = (dict(online.model.named_parameters())[name] for online in (kept, restored))
        changed = free != source
        assert ((mixed == free) | (mixed == source)).all(), "each number is the stepped one or that of the source"
        back += int((changed & (mixed == source)).sum())
        moved += int(changed.sum())
        total += source.numel()
    assert moved > 0.5 * total
    assert back / moved == pytest.approx(share, abs=0.02)
    for name, value in teacher_of(restored).items():
        assert torch.equal(value, teacher_of(kept)[name]), "the teacher follows before anything is restored"


def test_other_numbers_are_restored_at_every_step_and_with_every_seed(toy):
    x = torch.rand(6, 5)

    def restored(online: tta.OnlineModel) -> Tensor:
        online(x)
        pairs = zip(toy.parameters(), online.model.parameters(), strict=True)
        return torch.cat([(source == value).flatten() for source, value in pairs])

    first, other = (adapted(toy, restore=0.5, seed=seed) for seed in (0, 1))
    once, seeded = restored(first), restored(other)
    assert not torch.equal(once, seeded)
    assert not torch.equal(restored(first), once)


class Refusing(TorchUpdater):
    def optimizer_step(self) -> None:
        raise AssertionError("stepped")

    def step(self) -> bool:
        self.discard()
        return False


def test_skipped_step_leaves_teacher_and_student_as_they_are(toy, batches):
    online = adapted(toy, restore=0.5)
    online(batches[0])
    before = copy.deepcopy([dict(online.model.named_parameters()), teacher_of(online)])
    online.updater = Refusing(online.optimizer)
    online(batches[1])
    for old, new in zip(before, [dict(online.model.named_parameters()), teacher_of(online)], strict=True):
        assert all(torch.equal(old[name], value) for name, value in new.items())


class Tokens(nn.Module):
    """A class token beside layers, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.ones(5))
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x * self.cls_token)


@pytest.mark.parametrize(
    ("select", "names"),
    [
        ("weight_and_bias", {"head.weight", "head.bias"}),
        ("all", {"cls_token", "head.weight", "head.bias"}),
        (Select(types=["linear"]), {"head.weight", "head.bias"}),
    ],
)
def test_what_trains(select, names):
    model = Tokens()
    online = adapted(model, select=select)
    online(torch.rand(6, 5))
    before = dict(model.named_parameters())
    assert {name for name, value in online.model.named_parameters() if not torch.equal(value, before[name])} == names


def test_model_without_anything_to_train_is_refused():
    model = nn.Module()
    model.scale = nn.Parameter(torch.ones(3))
    with pytest.raises(tta.InputError, match="select='weight_and_bias' matches no parameter; the model has no layer"):
        adapted(model)


def test_costs_follow_from_the_views():
    make: Callable[..., Any] = tta.adapters.CoTTA
    assert make.facts.forwards == make().facts.forwards == 34
    assert make(views_count=4).facts.forwards == 6
    assert (make(threshold=0.0).facts.forwards, make(threshold=0.0).facts.augments) == (3, False)


@pytest.mark.parametrize(
    "arguments",
    [
        {"threshold": -0.1},
        {"restore": 1.1},
        {"momentum": float("nan")},
        {"loss": "hinge"},
        {"views_count": 0},
        {"select": "weights"},
        {"seed": -1},
    ],
)
def test_values_out_of_range(arguments):
    with pytest.raises(tta.InputError, match=next(iter(arguments))):
        tta.adapters.CoTTA(**arguments)
