"""SADE: the step, by hand and against the authors' code, and what its modes do."""

import copy
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tta
from models import Experts
from tta.adapters import SADE, Transductive

PARITY = Path(__file__).parents[1] / "functional" / "parity" / "sade.npz"
PUBLISHED = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


class LookUp(nn.Module):
    """Experts whose logits are stored; an image holds its row and the number of the view."""

    num_experts = 3

    def __init__(self, logits: list[Tensor]) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor, per_expert: bool = False) -> Tensor:
        rows, views = (x[:, channel, 0, 0].mul(512).round().long() for channel in (0, 1))
        found = torch.stack([self.logits[view][row] for row, view in zip(rows, views, strict=True)])
        return found if per_expert else found.mean(dim=1)

    def expert_logits(self, x: Tensor) -> Tensor:
        return self(x, per_expert=True)


class Numbered:
    """Writes into an image of a batch of ``size`` which view it is."""

    def __init__(self, size: int) -> None:
        self.size, self.calls = size, 0

    def __call__(self, image: Tensor) -> Tensor:
        view = self.calls // self.size % 2
        self.calls += 1
        return torch.stack([image[0], torch.full_like(image[1], view / 512)])


def rows_as_images(rows: range) -> Tensor:
    images = torch.zeros(len(rows), 2, 1, 1)
    images[:, 0, 0, 0] = torch.tensor(list(rows)) / 512
    return images


def one_sided(strength: float = 4.0) -> tuple[nn.Module, Tensor]:
    """Two experts: one always says class 0, the other follows the image."""

    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return strength * F.one_hot(torch.zeros(len(x), dtype=torch.long), 3).float()

    class Bright(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return strength * x.mean(dim=(2, 3))

    images = torch.rand(30, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return Experts([Constant(), Bright()]), images


def noisy(image: Tensor) -> Tensor:
    return image + 0.5 * torch.randn(image.shape[0], 1, 1)


@pytest.fixture
def parity() -> dict[str, Tensor]:
    stored = np.load(PARITY)
    return {name: torch.from_numpy(np.asarray(stored[name])) for name in stored.files}


def test_weights_are_those_of_the_published_code(parity):
    model = LookUp([parity["view0"], parity["view1"]])
    online = tta.online(model, "sade", views=Numbered(128), **PUBLISHED)
    for expected in parity["weights_after_epoch"]:
        for first in range(0, 512, 128):
            online(rows_as_images(range(first, first + 128)))
        assert (online.adapter.mixture() - expected).abs().max() <= 1e-4


def test_first_step_by_hand():
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(5, 3, 4, generator=generator) for _ in range(2)]
    online = tta.online(LookUp(views), "sade", views=Numbered(5), lr=0.5, momentum=0.0)
    logits = online(rows_as_images(range(5)))
    w = torch.full((3,), 1 / 3, requires_grad=True)
    p, q = ((w.softmax(0)[:, None] * view).sum(1).softmax(1) for view in views)
    loss = -((p * q).sum(1) / (p.norm(dim=1) * q.norm(dim=1))).mean()
    (gradient,) = torch.autograd.grad(loss, w)
    stepped = (1 / 3 - 0.5 * gradient).softmax(0)
    assert online.last.loss == pytest.approx(float(loss.detach()), abs=1e-6)
    assert torch.allclose(online.adapter.mixture(), stepped, atol=1e-6)
    assert torch.allclose(logits, (stepped[:, None] * views[0]).sum(1), atol=1e-5)


def test_what_the_mean_prediction_lost_in_entropy_joins_the_loss():
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(5, 3, 4, generator=generator) * torch.tensor([9, 1, 1])[:, None] for _ in range(2)]
    mixture = torch.tensor([0.8, 0.1, 0.1])
    losses = []
    for weight in (0.0, 2.0):
        online = tta.online(LookUp(views), "sade", views=Numbered(5), entropy_weight=weight)
        online.adapter.weights.data.copy_(mixture.log())
        online(rows_as_images(range(5)))
        losses.append(float(online.last.loss))

    def entropy(shares: Tensor) -> float:
        mean = torch.cat([(shares[:, None] * view).sum(1) for view in views]).softmax(1).mean(0)
        return float(-(mean * mean.log()).sum()) / np.log(4)

    lost = entropy(torch.full((3,), 1 / 3)) - entropy(mixture)
    assert lost > 0.01
    assert losses[1] - losses[0] == pytest.approx(2 * lost, abs=1e-5)


def test_a_mean_prediction_of_more_entropy_costs_nothing():
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(5, 3, 4, generator=generator) * torch.tensor([4, 4, 0.1])[:, None] for _ in range(2)]
    losses = []
    for weight in (0.0, 2.0):
        online = tta.online(LookUp(views), "sade", views=Numbered(5), entropy_weight=weight)
        online.adapter.weights.data.copy_(torch.tensor([0.0, 0.0, 5.0]))
        online(rows_as_images(range(5)))
        losses.append(float(online.last.loss))
    assert losses[0] == losses[1]


def test_agreement_alone_chooses_a_constant_expert_and_the_entropy_option_does_not():
    model, images = one_sided()
    shares = []
    for weight in (0.0, 3.0):
        online = tta.online(copy.deepcopy(model), "sade", views=noisy, entropy_weight=weight, lr=0.5, dominance=1.0)
        for _ in range(20):
            online(images)
        shares.append(float(online.adapter.mixture()[0]))
    assert shares[0] > 0.6
    assert shares[1] < 0.5


def test_predict_before_or_after_the_step():
    model, images = one_sided()
    plain = model(images)
    before = tta.online(copy.deepcopy(model), "sade", views=noisy, predict="before")
    after = tta.online(copy.deepcopy(model), "sade", views=noisy)
    assert not before.adapter.facts.predicts_after
    assert after.adapter.facts.predicts_after
    assert torch.allclose(before(images), plain, atol=1e-6)
    assert not torch.allclose(after(images), plain, atol=1e-6)
    assert torch.equal(before.adapter.weights, after.adapter.weights)


def test_frozen_once_a_weight_is_small():
    model, images = one_sided()
    online = tta.online(model, "sade", views=noisy, lr=2.0, freeze_below=0.3)
    for _ in range(30):
        online(images)
        if online.adapter.frozen:
            break
    stopped = online.adapter.mixture().clone()
    assert stopped.min() < 0.3
    online(images)
    assert torch.equal(online.adapter.mixture(), stopped)
    assert online.last.loss is None
    online.reset()
    online(images)
    assert online.last.loss is not None


def test_warns_of_a_dominant_expert_once():
    model, images = one_sided()
    online = tta.online(model, "sade", views=noisy, lr=2.0, dominance=0.7)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(30):
            online(images)
    assert [str(warning.message)[:20] for warning in caught] == ["SADE: expert 1 has 7"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tta.online(one_sided()[0], "sade", views=noisy, lr=1e-3)(images)


def test_weights_are_logged_and_sum_to_one():
    online = tta.online(LookUp([torch.zeros(4, 3, 2), torch.zeros(4, 3, 2)]), "sade", views=Numbered(4))
    online(rows_as_images(range(4)))
    scalars = online.last.scalars
    assert list(scalars) == ["weight_1", "weight_2", "weight_3"]
    assert sum(scalars.values()) == pytest.approx(1.0)


def test_no_gradient_enters_the_network():
    model = Experts([nn.Sequential(nn.Flatten(), nn.Linear(108, 3)) for _ in range(2)]).train()
    online = tta.online(model, "sade", views=noisy)
    online(torch.rand(4, 3, 6, 6))
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert not model.training
    assert [p.shape for p in online.adapter.trainable(model)] == [(2,)]


# ---- transductive ---------------------------------------------------------------------------------------------------


def transductive(parity: dict[str, Tensor], **settings: float) -> tta.OnlineModel:
    model = LookUp([parity["view0"], parity["view1"]])
    how = Transductive(**settings)
    return tta.online(model, "sade", views=Numbered(512), transductive=how, **PUBLISHED)


def test_transductive_is_close_to_the_published_epochs(parity):
    """The order of batches differs, so weights agree to a few percent only."""
    for epochs in (1, 3):
        online = transductive(parity, epochs=epochs)
        online.observe_target([rows_as_images(range(512))])
        assert (online.adapter.mixture() - parity["weights_after_epoch"][epochs - 1]).abs().max() < 0.03


def test_no_epoch_begins_once_a_weight_is_small(parity):
    """After the published epochs the smallest weights are .29, .22, .17, .13 and .10."""
    ends = {}
    for epochs, stop in ((2, 0.0), (5, 0.25), (5, 0.0)):
        online = transductive(parity, epochs=epochs, stop_below=stop)
        online.observe_target([rows_as_images(range(512))])
        ends[epochs, stop] = online.adapter.mixture()
    assert torch.equal(ends[5, 0.25], ends[2, 0.0])
    assert ends[5, 0.0].min() < 0.15


def test_transductive_predicts_with_fixed_weights(parity):
    online = transductive(parity, epochs=2)
    with pytest.raises(tta.InputError, match="has not seen the stream: call observe_target"):
        online(rows_as_images(range(4)))
    online.observe_target([rows_as_images(range(512))])
    fixed = online.adapter.mixture()
    logits = online(rows_as_images(range(64)))
    assert torch.allclose(logits, (fixed[:, None] * parity["view0"][:64]).sum(1), atol=1e-5)
    assert torch.equal(online.adapter.mixture(), fixed)
    assert online.last.loss is None
    online.reset()
    assert torch.allclose(online.adapter.mixture(), torch.full((3,), 1 / 3))
    with pytest.raises(tta.InputError, match="has not seen the stream"):
        online(rows_as_images(range(4)))


def test_steps_follow_batch_size_and_epochs_not_the_batches_of_the_stream():
    model, images = one_sided()
    for batches in (images.split(7), [images]):
        online = tta.online(copy.deepcopy(model), "sade", views=noisy, transductive=Transductive(2, 10, 0.0))
        steps = []
        step = online.updater.step
        online.updater.step = lambda step=step, steps=steps: steps.append(1) or step()
        online.observe_target(batches)
        assert len(steps) == 6


def test_draws_give_epochs_views_of_their_own():
    model, images = one_sided()
    seen: list[int] = []
    model.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    ends = {}
    for draws in (1, 3):
        seen.clear()
        how = Transductive(epochs=3, batch_size=10, stop_below=0.0, draws=draws)
        online = tta.online(copy.deepcopy(model), "sade", views=noisy, lr=1.0, transductive=how)
        online.observe_target(images.split(15))
        ends[draws] = online.adapter.mixture()
        assert sum(seen) == 2 * draws * 30
    assert not torch.equal(ends[1], ends[3])


def test_an_empty_stream_teaches_nothing():
    online = tta.online(one_sided()[0], "sade", transductive=Transductive())
    online.observe_target([])
    assert torch.allclose(online.adapter.mixture(), torch.full((2,), 0.5))


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SADE(predict="later"), "predict='later': choose after or before"),
        (lambda: SADE(seed=-1), "seed=-1"),
        (lambda: SADE(entropy_weight=-0.5), r"entropy_weight=-0\.5"),
        (lambda: SADE(freeze_below=1.0), r"freeze_below=1\.0"),
        (lambda: SADE(dominance=0.0), r"dominance=0\.0"),
        (lambda: Transductive(epochs=0), "epochs=0"),
        (lambda: Transductive(batch_size=0), "batch_size=0"),
        (lambda: Transductive(draws=0), "draws=0"),
        (lambda: Transductive(stop_below=1.5), r"stop_below=1\.5"),
        (lambda: tta.online(nn.Linear(2, 2), "sade"), "Linear has no experts: SADE needs a model with num_experts"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(tta.InputError, match=message):
        make()


@pytest.mark.parametrize("shape", [(3,), (1, 4), (2, 4)])
def test_expert_logits_of_another_shape_are_refused(shape):
    class Other(LookUp):
        def expert_logits(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), *shape)

    online = tta.online(Other([]), "sade", views=Numbered(2))
    said = re.escape(f"expert_logits returned shape {(2, *shape)}: SADE needs a tensor of shape (B, E, C), with E")
    with pytest.raises(tta.InputError, match=said + ".* num_experts=3"):
        online(rows_as_images(range(2)))
