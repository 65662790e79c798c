"""The way that costs less gives the weights of the plain way; where it would not, the plain way is taken."""

import copy
import math
from contextlib import nullcontext
from typing import Any
from unittest import mock

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import FrozenBatchNorm2d

import models
import tta
from tta.adapters import Select
from tta.functional import softmax_entropy
from tta.monitor import CostMeter

METHODS: dict[str, dict[str, Any]] = {
    "sar": {"reset_threshold": 0.0},
    "eta": {"redundancy": 2.0},
    "eata": {"redundancy": 2.0, "fisher_alpha": 5.0},
    "rdumb": {"redundancy": 2.0, "every": 15},
    "deyo": {"plpd_threshold": -0.1, "weight_margin": 0.5, "patches": 2},
    "roid": {"views": nn.Identity()},
    "cmf": {"views": nn.Identity()},
}
"""Methods of which only some samples teach."""


def small_mlp() -> nn.Module:
    hidden = [nn.Linear(768, 12), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 12), nn.LayerNorm(12), nn.Linear(12, 6)]
    return nn.Sequential(nn.Flatten(), *hidden)


def frozen_batch_norm() -> nn.Module:
    first = [nn.Conv2d(3, 8, 3, stride=2), FrozenBatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(200, 6))


MAKERS = {
    "vit": lambda: timm.create_model("test_vit", img_size=16, patch_size=4, num_classes=6),
    "convnext": lambda: timm.create_model("test_convnext", num_classes=6),
    "resnet": lambda: models.CifarResNet(depth=8, norm="group", num_classes=6),
    "frozen batch norm": frozen_batch_norm,
    "mlp": small_mlp,
}
SIDE = {"convnext": 32}
"""Height and width of images, where not 16."""

READY: dict[str, nn.Module] = {}


def images(kind: str, *sizes: int, seed: int = 0) -> Tensor:
    side = SIDE.get(kind, 16)
    return torch.rand(*sizes, 3, side, side, generator=torch.Generator().manual_seed(seed))


def network(kind: str) -> nn.Module:
    """An untrained network whose predictions are far from uniform, so that entropies vary between images."""
    if kind not in READY:
        torch.manual_seed(1)
        READY[kind] = MAKERS[kind]().eval()
        *_, head = (module for module in READY[kind].modules() if isinstance(module, nn.Linear))
        with torch.no_grad():
            logits = READY[kind](images(kind, 32))
            head.weight *= 2.0 / logits.std(dim=0).mean()
            head.bias -= head.bias + 2.0 / logits.std(dim=0).mean() * (logits.mean(dim=0) - head.bias)
    return copy.deepcopy(READY[kind])


def adapted(kind: str, name: str, margin: float, **arguments: Any) -> tta.OnlineModel:
    own = {**METHODS[name], "lr": 0.01, **arguments}
    if "views" not in own:
        own["margin"] = margin
    if name == "eata":
        own["source"] = [images(kind, 8, seed=3)]
    return tta.online(network(kind), name, **own)


def plainly() -> Any:
    """Within the context every graph is over the whole batch, and no pass leaves samples out."""
    return mock.patch("tta.adapters.first_pass.share_limit", return_value=0.0)


def weights(online: tta.OnlineModel) -> Tensor:
    return torch.cat([p.detach().flatten() for p in online.adapter.trainable(online.model)])


@settings(max_examples=25, derandomize=True)
@given(
    kind=st.sampled_from(sorted(MAKERS)),
    name=st.sampled_from(sorted(METHODS)),
    share=st.floats(0.0, 1.0),
    size=st.integers(1, 12),
    chunk=st.sampled_from([3, 16]),
    seed=st.integers(0, 1000),
)
def test_twenty_steps_end_in_the_weights_of_the_plain_way(kind, name, share, size, chunk, seed):
    batches = images(kind, 20, size, seed=seed)
    with torch.no_grad():
        entropies = softmax_entropy(network(kind)(batches.flatten(0, 1))) / math.log(6)
    margin = max(float(entropies.quantile(share)), 1e-3)
    fast, plain = adapted(kind, name, margin), adapted(kind, name, margin)
    start = weights(plain)
    for x in batches:
        with mock.patch.multiple("tta.functional.chunks", CHUNK=chunk, CHUNK_VALUES=1):
            logits = fast(x)
        with plainly():
            torch.testing.assert_close(logits, plain(x), rtol=1e-4, atol=1e-4)
        assert torch.equal(fast.last.reliable, plain.last.reliable)
    moved = float((weights(plain) - start).abs().max())
    torch.testing.assert_close(weights(fast), weights(plain), rtol=0.0, atol=1e-3 * moved + 1e-7)
    assert moved > 0.0 or share < 0.5 or size == 1


def passes(online: tta.OnlineModel, x: Tensor) -> tuple[int, int]:
    meter = CostMeter(online.model)
    online(x)
    meter.detach()
    return meter.forwards, meter.backwards


@pytest.mark.parametrize(
    ("name", "expected"), [("sar", (16 + 4, 4 + 4)), ("eta", (16, 4)), ("eata", (16, 4)), ("rdumb", (16, 4))]
)
def test_only_samples_that_teach_are_paid_for(name, expected):
    x = torch.rand(16, 3, 16, 16)
    with torch.no_grad():
        entropies = (softmax_entropy(network("vit")(x)) / math.log(6)).sort().values
    online = adapted("vit", name, float(entropies[3:5].mean()))
    assert passes(online, x) == expected
    assert int(online.last.reliable.sum()) == 4


def test_where_most_samples_teach_the_graph_is_over_the_whole_batch_and_the_choice_comes_back():
    x = torch.rand(16, 3, 16, 16)
    online = adapted("vit", "eta", margin=2.0, lr=1e-6)
    online(x)
    assert float(online.adapter.passes.share) == 1.0
    with mock.patch("tta.adapters.first_pass.RecordedPass", side_effect=AssertionError):
        online(x)
    with torch.no_grad():
        entropies = (softmax_entropy(online.model(x)) / math.log(6)).sort().values
    online.adapter.margin = float(entropies[1:3].mean())
    counts = [passes(online, x)[1] for _ in range(6)]
    assert counts[0] == 16
    assert counts[-1] < 4


def test_samples_of_a_batch_beyond_the_share_are_left_out_of_the_second_pass_alone():
    x = torch.rand(16, 3, 16, 16)
    with torch.no_grad():
        entropies = (softmax_entropy(network("vit")(x)) / math.log(6)).sort().values
    online = adapted("vit", "sar", float(entropies[14:].mean()), lr=1e-6, rho=1e-4)
    online(x)
    assert passes(online, x) == (16 + 15, 16 + 15)


class CentredOverTheBatch(nn.Module):
    """Mixes samples without any layer that is known for it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small_mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x - 0.5 * x.mean(dim=0, keepdim=True))


class Dropping(nn.Module):
    """Draws random numbers whatever its mode, which seldom matter."""

    def __init__(self, rate: float = 1e-6) -> None:
        super().__init__()
        self.body, self.rate = small_mlp(), rate

    def forward(self, x: Tensor) -> Tensor:
        return self.body(nn.functional.dropout(x, self.rate))


class Squeezing(nn.Module):
    """Returns a vector for a batch of one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small_mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).squeeze()


class Checkpointing(nn.Module):
    """Throws activations away and computes them again, in the way that ``torch.autograd.grad`` refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small_mlp()

    def forward(self, x: Tensor) -> Tensor:
        x = self.body[:2](x).requires_grad_()
        return self.body[2:](x) + 0.0 * checkpoint(self.body[2:], x, use_reentrant=True)


def checkpointing() -> nn.Module:
    model = network("vit")
    model.set_grad_checkpointing(True)
    return model


@pytest.mark.parametrize(
    "make",
    [
        CentredOverTheBatch,
        Dropping,
        lambda: Dropping(0.3),
        Squeezing,
        Checkpointing,
        checkpointing,
        lambda: torch.compile(network("vit"), backend="eager"),
        lambda: timm.create_model("test_resnet", num_classes=6),
    ],
    ids=[
        "mixes samples",
        "rare dropout",
        "dropout",
        "squeezes",
        "checkpoints",
        "checkpointing",
        "compiled",
        "batch statistics",
    ],
)
@pytest.mark.parametrize("name", ["sar", "deyo"])
def test_the_plain_way_bit_for_bit_where_graphs_over_some_samples_would_be_wrong(name, make):
    model = make()
    batches = torch.rand(3, 8, 3, 16, 16)
    batches[:, 1] = batches[:, 0]
    ends = []
    for context in (plainly(), nullcontext()):
        arguments = {"sar": {"reset_threshold": 0.0}, "deyo": {"plpd_threshold": -0.5, "patches": 2}}[name]
        online = tta.online(copy.deepcopy(model), name, lr=0.01, margin=2.0, select=Select(), **arguments)
        start = weights(online)
        with context:
            torch.manual_seed(0)
            logits = [online(x) for x in batches]
        ends.append((torch.stack(logits), weights(online)))
        assert not torch.equal(ends[-1][1], start)
    assert torch.equal(ends[0][0], ends[1][0])
    assert torch.equal(ends[0][1], ends[1][1])


def test_a_model_is_looked_at_anew_after_prepare():
    model = nn.Sequential(network("mlp"), nn.Dropout(0.5))
    online = tta.online(model, "eta", margin=0.9, redundancy=2.0)
    x = torch.rand(8, 3, 16, 16)
    online(x)
    limit = online.adapter.passes._limit
    online.adapter.prepare(model)
    model[1].train()
    online(x)
    assert limit > 0.0
    assert online.adapter.passes._limit == 0.0


def test_the_first_look_draws_no_random_numbers_and_counts_as_no_pass():
    online = tta.online(Dropping(), "eta", margin=1e-3)
    x = torch.full((8, 3, 16, 16), 0.5)
    torch.manual_seed(5)
    nn.functional.dropout(x, 1e-6)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert passes(online, x) == (8, 0)
    assert torch.equal(torch.rand(3), expected)


def test_a_model_that_returns_no_logits_is_refused():
    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(16)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x)

    online = tta.online(Features(), "sar")
    with pytest.raises(tta.InputError, match="the model returned a tensor of shape"):
        online(torch.rand(4, 3, 16, 16))


def test_the_share_is_part_of_the_state_and_forgotten_by_a_reset():
    online = adapted("mlp", "eta", margin=0.9)
    online(torch.rand(12, 3, 16, 16))
    share = online.state_dict()["adapter.passes.share"]
    assert 0.0 < float(share) <= 1.0
    online.reset()
    assert torch.isnan(online.adapter.passes.share)
