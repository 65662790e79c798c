"""The plain PyTorch host: what the contract suite does not already ask of it with every method."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.adapters import Adapter, AdapterOutput, Facts, ResetScope, Tent, Updater
from tta.adapters.base import checked_logits
from tta.functional import finite_samples
from tta.online import OnlineModel, SourceSnapshot, TorchUpdater
from tta.resets import Periodic


@pytest.fixture
def toy() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3))


class Ten(Adapter):
    """Ten steps in one: a method that someone else wrote, with a counter and a reset of its own every third batch."""

    facts = Facts(needs_gradients=True, steps_per_batch=2, smallest_batch=2, backwards=2)
    seen: Tensor

    def __init__(self, scope: ResetScope | None = None) -> None:
        super().__init__()
        self.scope = scope
        self.register_buffer("seen", torch.tensor(0))

    def prepare(self, model: nn.Module) -> None:
        model.requires_grad_(True)

    def reset(self) -> None:
        self.seen.zero_()

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        self.seen += 1
        for _ in range(2):
            with torch.enable_grad():
                logits = model(x)
                updater.backward(logits.square().mean())
            updater.step()
        return AdapterOutput(checked_logits(logits), reset=self.scope if self.seen >= 3 else None)


@pytest.mark.parametrize("scope", ResetScope)
def test_a_foreign_method_resets_what_it_asks_for(toy, scope):
    source = copy.deepcopy(toy.state_dict())
    online = tta.online(toy, Ten(scope), lr=0.1, momentum=0.9)
    for number in range(3):
        assert online.resets == 0, number
        online(torch.randn(4, 5))
    assert online.resets == 1
    assert all(torch.equal(value, source[name]) for name, value in toy.state_dict().items())
    everything = scope is ResetScope.ALL
    assert bool(online.optimizer.state) != everything
    assert int(online.adapter.seen) == (0 if everything else 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_pixels_whose_sum_overflows_are_finite_all_the_same(dtype):
    x = torch.zeros(3, 100, dtype=dtype)
    x[1] = torch.finfo(dtype).max / 50
    x[2, 7], x[2, 8] = torch.inf, -torch.inf
    assert finite_samples(x).tolist() == [True, True, False]


def test_smallest_batch_of_a_method(toy):
    online = tta.online(toy, Ten())
    with pytest.raises(tta.InputError, match="Ten got a batch of 1: it needs at least 2"):
        online(torch.randn(1, 5))


def test_count_of_resets_is_saved(toy):
    online = tta.online(toy, Ten(ResetScope.ALL))
    for _ in range(6):
        online(torch.randn(4, 5))
    other = tta.online(copy.deepcopy(toy), Ten(ResetScope.ALL))
    other.load_state_dict(online.state_dict())
    assert other.resets == online.resets == 2


def test_model_is_adapted_in_place(toy):
    before = toy[1].weight.detach().clone()
    online = tta.online(toy, "tent", lr=0.5)
    assert online.model is toy
    online(torch.randn(8, 5))
    assert not torch.equal(toy[1].weight, before)


@pytest.mark.parametrize(
    ("optimizer", "arguments", "cls", "expected"),
    [
        ("sgd", {}, torch.optim.SGD, {"lr": 2.5e-4, "momentum": 0.9}),
        ("SGD", {"lr": 0.1, "nesterov": True}, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        ("adam", {}, torch.optim.Adam, {"lr": 1e-3}),
        ("adamw", {"weight_decay": 0.3}, torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.3}),
        (torch.optim.RMSprop, {"lr": 0.2}, torch.optim.RMSprop, {"lr": 0.2}),
        (lambda parameters, **kw: torch.optim.SGD(parameters, **kw), {"lr": 0.7}, torch.optim.SGD, {"lr": 0.7}),
    ],
)
def test_optimizers_and_their_arguments(toy, optimizer, arguments, cls, expected):
    online = tta.online(toy, "tent", optimizer=optimizer, **arguments)
    assert type(online.optimizer) is cls
    group = online.optimizer.param_groups[0]
    assert {name: group[name] for name in expected} == expected
    assert [id(p) for p in group["params"]] == [id(toy[1].weight), id(toy[1].bias)]


def test_arguments_go_to_the_method_or_the_optimizer_by_name(toy):
    online = tta.online(toy, "sar", margin=0.7, rho=0.2, lr=0.3)
    assert (online.adapter.margin, online.adapter.rho) == (0.7, 0.2)
    assert online.optimizer.param_groups[0]["lr"] == 0.3


def test_method_as_an_object(toy):
    adapter = Tent()
    assert tta.online(toy, adapter, lr=0.3).adapter is adapter


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_resume_with_every_optimizer(toy, optimizer):
    batches = torch.randn(4, 8, 5)
    online = tta.online(copy.deepcopy(toy), "tent", optimizer=optimizer, lr=0.05)
    for x in batches[:2]:
        online(x)
    resumed = tta.online(copy.deepcopy(toy), "tent", optimizer=optimizer, lr=0.05)
    resumed.load_state_dict(copy.deepcopy(online.state_dict()))
    assert all(torch.equal(online(x), resumed(x)) for x in batches[2:])
    assert online.optimizer.state


@pytest.mark.parametrize("optimizer", [torch.optim.Adagrad, torch.optim.Adam])
def test_every_reset_gives_back_the_same_optimizer(toy, optimizer):
    online = tta.online(toy, "tent", optimizer=optimizer, lr=0.05)
    batches = torch.randn(3, 8, 5)
    lives = []
    for _ in range(3):
        lives.append([online(x) for x in batches])
        online.reset()
    assert all(torch.equal(a, b) for life in lives[1:] for a, b in zip(lives[0], life, strict=True))


def test_a_state_can_be_loaded_twice(toy):
    online = tta.online(toy, "tent", lr=0.5)
    batches = torch.randn(4, 8, 5)
    online(batches[0])
    saved = copy.deepcopy(online.state_dict())
    lives = []
    for _ in range(2):
        online.load_state_dict(saved)
        lives.append([online(x) for x in batches[1:]])
    assert all(torch.equal(a, b) for a, b in zip(*lives, strict=True))


def test_state_dict_does_not_follow_later_steps_once_copied(toy):
    online = tta.online(toy, "tent", lr=0.5)
    online(torch.randn(8, 5))
    saved = copy.deepcopy(online.state_dict())
    weight = toy[1].weight.detach().clone()
    online(torch.randn(8, 5))
    online.load_state_dict(saved)
    assert torch.equal(toy[1].weight, weight)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda x: x[:, :1, None], r"returned a tensor of shape \(4, 1, 1\): .* logits of shape \(B, C\)"),
        (lambda x: (x, x), "returned tuple"),
        (lambda x: {"logits": x}, "returned dict"),
        (lambda x: x.long(), r"returned a tensor of shape \(4, 5\)"),
        (lambda x: None, "returned NoneType"),
    ],
)
@pytest.mark.parametrize("name", ["source", "tent", "sar"])
def test_models_that_return_something_else(result, message, name):
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(5)

        def forward(self, x: Tensor) -> Any:
            return result(self.norm(x))

    with pytest.raises(tta.InputError, match=message):
        tta.online(Wrong(), name)(torch.randn(4, 5))


def test_errors_of_the_model_itself_pass_unchanged(toy):
    online = tta.online(toy, "tent")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        online(torch.randn(4, 6))

    class Picky(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("I only take Tuesdays")

    with pytest.raises(ValueError, match="Tuesdays") as error:
        tta.online(Picky(5), "tent")(torch.randn(4, 5))
    assert not isinstance(error.value, tta.InputError)


def test_a_method_without_declared_gradients_that_asks_for_a_step_is_told():
    updater = TorchUpdater(None)
    with pytest.raises(RuntimeError, match="needs_gradients=False"):
        updater.step()


def test_updater_reports_the_norm_and_skips(toy):
    optimizer = torch.optim.SGD(toy.parameters(), lr=1.0)
    updater = TorchUpdater(optimizer)
    assert updater.gradient_norm is None
    (3.0 * toy[2].bias[0] + 4.0 * toy[2].bias[1]).backward()
    before = toy[2].bias.detach().clone()
    assert updater.step() is True
    assert float(updater.gradient_norm) == pytest.approx(5.0)
    torch.testing.assert_close(toy[2].bias.detach(), before - torch.tensor([3.0, 4.0, 0.0]))
    updater.backward((toy[2].bias * torch.tensor([1.0, float("inf"), 1.0])).sum())
    before = toy[2].bias.detach().clone()
    assert updater.step() is False
    assert updater.skipped_steps == 1
    assert torch.equal(toy[2].bias, before)
    assert all(p.grad is None for p in toy.parameters())
    updater.backward(toy[2].bias.sum())
    updater.discard()
    assert all(p.grad is None for p in toy.parameters())


def test_snapshot_and_drift(toy):
    Tent().prepare(toy)
    snapshot = SourceSnapshot(toy)
    assert set(snapshot.values) == {"1.weight", "1.bias"}
    assert float(snapshot.drift()) == 0.0
    with torch.no_grad():
        toy[1].weight.add_(torch.tensor([0.0, 0.6, 0.8, 0.0]))
    assert float(snapshot.drift()) == pytest.approx(1.0 / 2.0)  # the source is four ones and four zeros
    snapshot.restore(toy)
    assert torch.equal(toy[1].weight, torch.ones(4))
    toy.requires_grad_(False)
    assert float(SourceSnapshot(toy).drift()) == 0.0


def test_as_a_part_of_another_module(toy):
    """Modes set from outside do not reach the adapted model, and its parameters are the owner's."""
    pipeline = nn.Sequential(nn.Dropout(0.5), OnlineModel(toy, Tent()))
    pipeline.train()
    assert pipeline[0].training
    assert not any(m.training for m in toy.modules())
    pipeline.eval()
    assert pipeline(torch.randn(4, 5)).shape == (4, 3)
    assert set(toy.parameters()) <= set(pipeline.parameters())


def test_protocols_by_name_and_as_parts(toy):
    x = torch.randn(6, 8, 5)
    for resets, expected in (("continual", 0), ("per_domain", 1), ("episodic", 5), (Periodic(every=2), 3)):
        online = tta.online(copy.deepcopy(toy), "tent", lr=0.5, resets=resets)
        for number, batch in enumerate(x):
            if number == 3:
                online.new_domain()
            online(batch)
        assert online.resets == expected
        saved = copy.deepcopy(online.state_dict())
        other = tta.online(copy.deepcopy(toy), "tent", lr=0.5, resets=copy.deepcopy(resets))
        other.load_state_dict(saved)
        assert torch.equal(online(x[0]), other(x[0]))
        assert online.resets == other.resets == expected + (resets == "episodic")
    with pytest.raises(tta.InputError, match="unknown reset protocol 'sometimes': choose from continual, per_domain"):
        tta.online(toy, "tent", resets="sometimes")


def test_a_reset_forgets_the_domain_and_the_period(toy):
    for resets in (Periodic(every=2), "per_domain"):
        online = tta.online(copy.deepcopy(toy), "tent", lr=0.5, resets=resets)
        online(torch.randn(8, 5))
        online.new_domain()
        online.reset()
        online(torch.randn(8, 5))
        assert online.resets == 0


def test_squared_gradients_on_request(toy):
    updater = TorchUpdater(torch.optim.SGD(toy.parameters(), lr=1.0))
    updater.keep_squared_gradients = True
    updater.backward(3.0 * toy[2].bias[0])
    updater.step()
    assert list(updater.squared_gradients) == [toy[2].bias]
    assert updater.squared_gradients[toy[2].bias].tolist() == [9.0, 0.0, 0.0]
    updater.squared_gradients = {}
    updater.backward(torch.inf * toy[2].bias[0])
    updater.step()
    assert updater.squared_gradients == {}, "a skipped step taught nothing"
