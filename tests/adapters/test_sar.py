"""SAR against a plain re-computation, and each difference between the published and the corrected behaviour."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.adapters import SAR, ResetScope, Select

LN3 = math.log(3)


@pytest.fixture
def toy() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3))


def entropies(logits: Tensor) -> Tensor:
    p = logits.softmax(1)
    return -(p * p.log()).sum(1)


class PlainSAR:
    """Algorithm 1 of the paper, in one piece, on explicit tensors. Shares no code with the library."""

    def __init__(self, model: nn.Module, names: list[str], e0: float, rho: float, lr: float, momentum: float) -> None:
        self.model, self.names = model, names
        self.e0, self.rho, self.lr, self.momentum = e0, rho, lr, momentum
        self.theta = {name: dict(model.named_parameters())[name].detach().clone() for name in names}
        self.buffer: dict[str, Tensor] | None = None
        self.ema: float | None = None

    def gradient(self, theta: dict[str, Tensor], x: Tensor, keep: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        theta = {name: value.clone().requires_grad_() for name, value in theta.items()}
        entropy = entropies(torch.func.functional_call(self.model, theta, (x,)))
        kept = keep & (entropy.detach() < self.e0)
        self.ignored = int((~keep & (entropy.detach() < self.e0)).sum())
        loss = entropy[kept].mean()
        return dict(zip(theta, torch.autograd.grad(loss, list(theta.values())), strict=True)), kept, loss.detach()

    def step(self, x: Tensor) -> None:
        everything = torch.ones(len(x), dtype=torch.bool)
        first, reliable, _ = self.gradient(self.theta, x, everything)
        norm = sum(float(g.square().sum()) for g in first.values()) ** 0.5
        worst = {name: value + self.rho * first[name] / norm for name, value in self.theta.items()}
        second, still, loss = self.gradient(worst, x, reliable)
        self.kept = (int(reliable.sum()), int(still.sum()))
        self.ema = float(loss) if self.ema is None else 0.9 * self.ema + 0.1 * float(loss)
        if self.buffer is None:
            self.buffer = second
        else:
            self.buffer = {name: self.momentum * self.buffer[name] + second[name] for name in self.names}
        self.theta = {name: value - self.lr * self.buffer[name] for name, value in self.theta.items()}


def test_whole_steps_equal_a_plain_computation():
    """Two passes, two filters, the way back, momentum and the moving average, over five batches."""
    torch.manual_seed(4)  # of a stream in which both filters and the samples they leave out matter
    toy = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    batches = torch.randn(5, 60, 5)
    online = tta.online(copy.deepcopy(toy), "sar", lr=0.3, momentum=0.9, margin=0.8, rho=1.0, reset_threshold=0.0)
    names = ["1.weight", "1.bias"]  # the first of two: three quarters, rounded down
    plain = PlainSAR(toy, names, e0=0.8 * LN3, rho=1.0, lr=0.3, momentum=0.9)
    filters, newly_certain = [], 0
    for x in batches:
        before = {n: p.detach().clone() for n, p in online.model.named_parameters()}
        logits = online(x)
        assert torch.equal(logits, torch.func.functional_call(toy, before, (x,)).detach())
        plain.step(x)
        filters.append((len(x), *plain.kept))
        newly_certain += plain.ignored
        for name in names:
            torch.testing.assert_close(online.model.get_parameter(name).detach(), plain.theta[name])
        assert float(online.last.scalars["entropy_ema"]) == pytest.approx(plain.ema, rel=1e-5)
        assert int(online.last.reliable.sum()) == plain.kept[0]
    assert any(all_ > first > second for all_, first, second in filters), (
        "no batch in which both filters leave some out"
    )
    assert newly_certain > 0, "no sample that is certain at the worst point alone"
    assert (plain.theta["1.weight"] - toy[1].weight).abs().max() > 0.05


def test_radius_zero_is_entropy_minimisation_of_reliable_samples(toy):
    x = torch.randn(20, 5)
    start = copy.deepcopy(toy)
    online = tta.online(toy, "sar", lr=0.3, momentum=0.0, margin=0.9, rho=0.0, reset_threshold=0.0)
    online(x)
    entropy = entropies(start(x))
    reliable = entropy < 0.9 * LN3
    assert 0 < reliable.sum() < 20
    assert torch.equal(online.last.reliable, reliable)
    (gradient,) = torch.autograd.grad(entropy[reliable].mean(), [start[1].weight])
    torch.testing.assert_close(toy[1].weight, start[1].weight - 0.3 * gradient)
    torch.testing.assert_close(online.last.loss, entropy[reliable].mean().detach())


def test_margin_is_a_share_of_the_logarithm_of_the_class_count():
    """With ten classes 0.4 means 0.921 nats, not the 2.763 of a thousand, which every sample would pass."""

    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(1)

        def forward(self, x: Tensor) -> Tensor:
            return x + 0.0 * self.norm(x[:, :1])

    def logits_of_entropy(target: float) -> Tensor:
        low, high = 0.0, 50.0
        for _ in range(60):
            middle = (low + high) / 2
            row = torch.tensor([[middle] + [0.0] * 9], dtype=torch.float64)
            low, high = (middle, high) if float(entropies(row)) > target else (low, middle)
        return row.float()

    x = torch.cat([logits_of_entropy(value) for value in (0.5, 0.915, 0.928, 2.0)])
    online = tta.online(Given(), "sar")
    online(x)
    assert online.last.reliable.tolist() == [True, True, False, False]


# ---- no reliable sample: momentum -----------------------------------------------------------------------------------


def with_momentum(toy: nn.Module, **arguments: Any) -> tuple[tta.OnlineModel, nn.Parameter]:
    options = {"lr": 0.3, "momentum": 0.9, "margin": 2.0, "reset_threshold": 0.0, "rho": 0.05, **arguments}
    online = tta.online(toy, "sar", select=Select(stop=0.5), **options)
    online(torch.randn(20, 5))
    return online, online.model[1].weight


@pytest.mark.parametrize("published", [False, True])
def test_batch_without_reliable_samples_moves_by_momentum_only_when_published(toy, published):
    online, weight = with_momentum(toy, published=published)
    buffer = online.optimizer.state[weight]["momentum_buffer"].clone()
    before, ema = weight.detach().clone(), online.adapter.entropy_ema.clone()
    online.adapter.margin = -1.0
    online(torch.randn(20, 5))
    step = 0.3 * 0.9 * buffer if published else torch.zeros_like(buffer)
    torch.testing.assert_close(before - weight.detach(), step, rtol=1e-4, atol=1e-7)
    assert buffer.abs().max() > 1e-3
    left = online.optimizer.state[weight]["momentum_buffer"]
    torch.testing.assert_close(left, 0.9 * buffer if published else buffer)
    assert online.last.loss is None
    assert torch.equal(online.adapter.entropy_ema, ema)


@pytest.mark.parametrize("published", [False, True])
def test_no_reliable_sample_at_the_start_changes_nothing(toy, published):
    start = copy.deepcopy(toy.state_dict())
    online = tta.online(toy, "sar", select=Select(), published=published, lr=0.3, margin=1e-6)
    online(torch.randn(20, 5))
    assert all(torch.equal(value, start[name]) for name, value in toy.state_dict().items())
    assert torch.isnan(online.adapter.entropy_ema)


class Scripted(nn.Module):
    """One adapted weight w; its logits are (s w, 0, 0), so that the entropy is a function of w alone."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(1)
        nn.init.constant_(self.norm.bias, weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.norm(x), torch.zeros(len(x), 2)], dim=1)


def test_sample_reliable_before_the_move_but_not_after_takes_no_step():
    """The worst point has the higher entropy: with a large radius nothing is left there."""
    online = tta.online(Scripted(3.0), "sar", margin=0.5, rho=2.9, lr=0.3)
    online(torch.zeros(4, 1))
    assert online.last.reliable.all()
    assert online.last.loss is None
    assert online.model.norm.bias.item() == 3.0
    assert not online.optimizer.state
    near = tta.online(Scripted(3.0), "sar", margin=0.5, rho=0.1, lr=0.3)
    near(torch.zeros(4, 1))
    assert near.model.norm.bias.item() > 3.0


# ---- reset ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("published", [False, True])
def test_reset_of_its_own_clears_momentum_and_average_unless_published(toy, published):
    source = copy.deepcopy(toy.state_dict())
    online, weight = with_momentum(toy, published=published)
    assert online.resets == 0
    online.adapter.reset_threshold = 10.0
    online(torch.randn(20, 5))
    assert online.resets == 1
    assert online.last.reset is (ResetScope.WEIGHTS if published else ResetScope.ALL)
    assert all(torch.equal(value, source[name]) for name, value in toy.state_dict().items())
    if published:
        assert online.optimizer.state[weight]["momentum_buffer"].abs().max() > 1e-3
        assert torch.isfinite(online.adapter.entropy_ema)
        assert torch.equal(online.adapter.entropy_ema, online.last.scalars["entropy_ema"])
    else:
        assert not online.optimizer.state
        assert torch.isnan(online.adapter.entropy_ema)


def test_asked_for_reset_clears_everything_also_when_published(toy):
    online, _ = with_momentum(toy, published=True)
    online.reset()
    assert not online.optimizer.state
    assert torch.isnan(online.adapter.entropy_ema)


@pytest.mark.parametrize("threshold_over_loss", [0.99, 1.01])
def test_reset_threshold_is_honoured(toy, threshold_over_loss):
    x = torch.randn(20, 5)
    probe = tta.online(copy.deepcopy(toy), "sar", margin=2.0, reset_threshold=0.0)
    probe(x)
    loss = float(probe.last.loss)
    assert abs(loss - 0.2) > 0.01
    for published in (False, True):
        online = tta.online(
            copy.deepcopy(toy),
            SAR(2.0, reset_threshold=threshold_over_loss * loss, select=Select(stop=0.75)),
            lr=2.5e-4,
        )
        online.adapter.published = published
        online(x)
        assert online.resets == int(threshold_over_loss > 1)


def test_published_average_below_the_threshold_resets_again_at_the_next_step(toy):
    """The average survives the reset, so a run of resets follows; the corrected one starts anew."""
    counts = {}
    for published in (False, True):
        online, _ = with_momentum(copy.deepcopy(toy), published=published)
        online.adapter.entropy_ema.fill_(0.01)
        online.adapter.reset_threshold = 0.2
        counts[published] = []
        for _ in range(2):
            online(torch.randn(20, 5))
            counts[published].append(online.resets)
    assert counts == {False: [1, 1], True: [1, 2]}


def test_average_starts_at_the_first_loss_and_moves_by_a_tenth(toy):
    online = tta.online(toy, "sar", margin=2.0, reset_threshold=0.0)
    expected = None
    for x in torch.randn(4, 20, 5):
        online(x)
        loss = float(online.last.loss)
        expected = loss if expected is None else 0.9 * expected + 0.1 * loss
        assert float(online.adapter.entropy_ema) == pytest.approx(expected, rel=1e-6)


# ---- layers and modes -----------------------------------------------------------------------------------------------


def test_layers_by_default_and_when_published(untrained):
    online = tta.online(untrained("bn"), "sar", published=True)
    adapted = [n for n, p in online.model.named_parameters() if p.requires_grad]
    assert adapted
    assert not any("layer4" in name for name in adapted)
    assert any("layer3" in name for name in adapted)
    corrected = tta.online(untrained("bn"), "sar")
    layers = [m for m in corrected.model.modules() if isinstance(m, nn.BatchNorm2d)]
    chosen = [m.weight.requires_grad for m in layers]
    assert chosen == [number < int(0.75 * len(layers)) for number in range(len(layers))]


def test_select_given_wins_over_the_published_rule(untrained):
    online = tta.online(untrained("bn"), "sar", published=True, select=Select(start=0.9))
    assert all("layer4" in name for name, p in online.model.named_parameters() if p.requires_grad)


def test_published_is_in_train_mode_with_dropout(trained, stream):
    runs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = nn.Sequential(trained("bn"), nn.Dropout(0.5))
        online = tta.online(model, "sar", published=True).eval()
        runs.append(online(stream[0]))
        assert model[1].training
    assert not torch.equal(*runs)


@pytest.mark.parametrize("published", [False, True])
def test_weights_come_back_when_the_second_pass_fails(toy, published):
    class FailsAtSecondPass(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if not torch.equal(self[1].weight, start["1.weight"]):
                raise RuntimeError("out of memory")
            return super().forward(x)

    start = copy.deepcopy(toy.state_dict())
    model = FailsAtSecondPass(*toy)
    online = tta.online(model, "sar", margin=2.0, rho=1.0, published=published, select=Select(stop=0.75))
    with pytest.raises(RuntimeError, match="out of memory"):
        online(torch.randn(20, 5))
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_move_inside_an_autocast_block_is_seen_by_the_second_pass():
    """Autocast keeps the bf16 cast of a weight; the pass at the worst point must not meet the cast from before."""
    toy = nn.Sequential(nn.Linear(5, 3))
    x = torch.randn(20, 5)
    losses = []
    for rho in (0.0, 1.0):
        online = tta.online(copy.deepcopy(toy), SAR(2.0, rho, 0.0, select=Select(types=["linear"])))
        with torch.autocast("cpu", torch.bfloat16):
            online(x)
        losses.append(float(online.last.loss))
    assert losses[1] > losses[0] + 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"margin": 0.0}, "margin=0.0: need margin > 0"),
        ({"margin": float("nan")}, "margin=nan"),
        ({"rho": -0.1}, "rho=-0.1"),
        ({"reset_threshold": -1.0}, "reset_threshold=-1.0"),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(tta.InputError, match=message):
        SAR(**arguments)
