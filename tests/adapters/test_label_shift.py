"""The label-shift adapter around other methods and around none."""

import copy

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.adapters import (
    EATA,
    SAR,
    BNStats,
    ExpectationMaximization,
    LabelShift,
    LogitAdjustment,
    MovingAverage,
    OraclePrior,
    Tent,
)
from tta.adapters.label_shift_network import LabelShiftNetwork
from tta.companion import Companion
from tta.functional import class_prior, logit_adjustment

SOURCE = [50.0] * 5 + [5.0] * 5
TARGET = [5.0] * 5 + [50.0] * 5


def companion(features: int = 64, classes: int = 10) -> Companion:
    network = LabelShiftNetwork(features, [1.0] * classes)
    return Companion("LabelShift", network.tensors(), {"network": network.settings()})


def post_hoc(adapter: tta.adapters.Adapter | None = None, estimator=None) -> LabelShift:
    return LabelShift(adapter, LogitAdjustment(), estimator or MovingAverage(), source_prior=SOURCE)


INNER = {
    "none": lambda: None,
    "bnstats": BNStats,
    "tent": Tent,
    "sar": lambda: SAR(margin=0.97, reset_threshold=0.0),
    "eata": lambda: EATA(margin=0.97, redundancy=0.95, fisher_alpha=20.0),
}


@pytest.mark.parametrize("name", INNER)
def test_at_the_source_prior_the_inner_method_is_left_as_it_is(name, trained, stream, digits):
    """The post-hoc correction by the true source prior is none at all, for predictions and for what is learnt."""
    source = digits[0][:16].split(8)
    inner = INNER[name]()
    plain = tta.online(trained("bn"), "source" if inner is None else inner, source=source, lr=0.02)
    oracle = OraclePrior(SOURCE)
    wrapped = LabelShift(INNER[name](), LogitAdjustment(floor=1e-12), oracle, source_prior=SOURCE)
    online = tta.online(trained("bn"), wrapped, source=source, lr=0.02)
    for x in stream[:3]:
        assert torch.allclose(online(x), plain(x), atol=1e-3)
    for (key, one), two in zip(online.model.state_dict().items(), plain.model.state_dict().values(), strict=True):
        assert torch.allclose(one, two, atol=1e-3), key


@pytest.mark.parametrize("name", INNER)
def test_untrained_network_is_left_out_exactly(name, trained, stream, digits):
    source = digits[0][:16].split(8)
    inner = INNER[name]()
    plain = tta.online(trained("gn") if name != "bnstats" else trained("bn"), inner or "source", source=source, lr=0.02)
    size = [m for m in plain.model.modules() if isinstance(m, nn.Linear)][-1].in_features
    model = trained("gn") if name != "bnstats" else trained("bn")
    adapter = LabelShift(INNER[name](), None, MovingAverage(), companion(size))
    online = tta.online(model, adapter, source=source, lr=0.02)
    assert all(torch.allclose(online(x), plain(x), atol=1e-5) for x in stream[:3])


def test_first_prediction_and_estimate_by_hand(trained, stream):
    model = trained("gn")
    with torch.no_grad():
        raw = model(stream[0])
    online = tta.online(model, post_hoc(estimator=MovingAverage(momentum=0.75)))
    offset = logit_adjustment(torch.full((10,), 0.1), class_prior(SOURCE))
    assert torch.allclose(online(stream[0]), raw + offset, atol=1e-5)
    expected = 0.75 * 0.1 + 0.25 * (raw + offset).softmax(1).mean(0)
    assert torch.allclose(online.adapter.estimator.prior, expected, atol=1e-6)
    with torch.no_grad():
        raw = trained("gn")(stream[1])
    moved = logit_adjustment(expected, class_prior(SOURCE))
    assert torch.allclose(online(stream[1]), raw + moved, atol=1e-4)


def test_the_inner_loss_goes_through_the_changed_head(trained, stream):
    online = tta.online(trained("gn"), post_hoc(Tent(), OraclePrior(TARGET)), lr=0.02)
    model = trained("gn").eval()
    with torch.no_grad():
        logits = model(stream[0]) + logit_adjustment(class_prior(TARGET), class_prior(SOURCE))
    online(stream[0])
    assert torch.allclose(online.last.loss, tta.functional.softmax_entropy(logits).mean(), atol=1e-4)


def long_tailed_stream(digits: tuple[Tensor, Tensor], seed: int = 0) -> tuple[Tensor, Tensor]:
    images, labels = digits[0][800:], digits[1][800:]
    weights = class_prior(TARGET)[labels]
    rows = torch.multinomial(weights, 400, generator=torch.Generator().manual_seed(seed))
    return images[rows], labels[rows]


@pytest.fixture(scope="module")
def source_model(trained, digits) -> nn.Module:
    """A network whose head was fitted to the source prior."""
    model = trained("gn")
    images, labels = digits[0][:800], digits[1][:800]
    features: list[Tensor] = []
    handle = model.linear.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    with torch.no_grad():
        model(images)
    handle.remove()
    weights = class_prior(SOURCE)[labels]
    optimizer = torch.optim.Adam(model.linear.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        losses = nn.functional.cross_entropy(model.linear(features[0]), labels, reduction="none")
        (weights @ losses / weights.sum()).backward()
        optimizer.step()
    model.zero_grad()
    return model


def accuracy(model: nn.Module, adapter, x: Tensor, y: Tensor) -> float:
    online = tta.online(copy.deepcopy(model), adapter)
    correct = [online(part).argmax(1) == labels for part, labels in zip(x.split(40), y.split(40), strict=True)]
    return float(torch.cat(correct).float().mean())


def test_true_prior_beats_the_estimate_which_beats_nothing(source_model, digits):
    x, y = long_tailed_stream(digits)
    truth = (torch.bincount(y, minlength=10) + 1e-3).tolist()
    nothing = accuracy(source_model, "source", x, y)
    estimated = accuracy(source_model, post_hoc(estimator=ExpectationMaximization(window=400)), x, y)
    oracle = accuracy(source_model, post_hoc(estimator=OraclePrior(truth)), x, y)
    assert oracle >= estimated >= nothing
    assert oracle >= nothing + 0.02


def test_scalars_tell_the_estimate(trained, stream):
    online = tta.online(trained("gn"), post_hoc(SAR(margin=0.97), OraclePrior(TARGET)))
    online(stream[0])
    prior = class_prior(TARGET)
    scalars = online.last.scalars
    assert float(scalars["prior_entropy"]) == pytest.approx(float(-(prior * prior.log()).sum()), abs=1e-4)
    assert float(scalars["degree_of_imbalance"]) == pytest.approx(-0.99, abs=0.02)
    assert [float(scalars[f"prior_{k}"]) for k in range(10)] == pytest.approx(prior.tolist())
    assert "entropy_ema" in scalars


def test_facts_and_resets_are_the_inner_methods(trained, stream):
    resetting = SAR(margin=0.97, reset_threshold=100.0)
    online = tta.online(trained("gn"), post_hoc(resetting), lr=0.02)
    facts = online.adapter.facts
    assert (facts.needs_gradients, facts.forwards, facts.backwards) == (True, 2, 2)
    assert facts.needs_companion
    online(stream[0])
    assert online.resets == 1
    assert torch.allclose(online.adapter.estimator.prior, torch.full((10,), 0.1))
    assert post_hoc().facts.backwards == 0


@pytest.mark.parametrize("name", ["none", "sar", "eata"])
def test_goes_on_from_a_state_dict_mid_stream(name, trained, stream, digits):
    def make() -> tta.OnlineModel:
        estimator = ExpectationMaximization(window=10)
        return tta.online(trained("bn"), post_hoc(INNER[name](), estimator), source=digits[0][:16].split(8), lr=0.02)

    whole, cut = make(), make()
    for x in stream[:3]:
        whole(x)
    cut.load_state_dict(copy.deepcopy(whole.state_dict()))
    assert all(torch.equal(whole(x), cut(x)) for x in stream[3:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("logits", ["adapted", "raw", "uniform"])
@pytest.mark.parametrize("form", ["full", "per_class_scale"])
def test_models_of_another_dtype(dtype, logits, form, trained, stream):
    network = LabelShiftNetwork(64, SOURCE, form=form)
    nn.init.normal_(network.out.weight, std=1e-3)
    made = Companion("LabelShift", network.tensors(), {"network": network.settings()})
    first = [
        tta.online(trained("gn").to(given), LabelShift(Tent(), None, MovingAverage(logits), made))
        for given in (torch.float32, dtype)
    ]
    plain, cast = (online(stream[0].to(given)) for online, given in zip(first, (torch.float32, dtype), strict=True))
    assert cast.dtype == torch.float32
    assert torch.allclose(plain, cast, atol=0.2)
    assert torch.allclose(*(online.adapter.estimator.prior for online in first), atol=0.01)


def test_hooks_are_gone_after_a_batch_and_after_an_error(trained, stream):
    online = tta.online(trained("gn"), post_hoc(Tent()))
    online(stream[0])
    with pytest.raises(RuntimeError):
        online(torch.rand(2, 5, 32, 32))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in online.model.modules())


class Squared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)[:, :2]


class Averaged(nn.Module):
    """Two heads: a change of the last one would correct half of the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(64, 10) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([head(x) for head in self.heads]).mean(dim=0)


class Auxiliary(nn.Module):
    """The last linear layer is not the head."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.auxiliary = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        self.auxiliary(x)
        return self.head(x)


class NoHead(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabelShift(Tent()), "neither companion nor source_prior: give companion="),
        (lambda: LabelShift(None, source_prior=SOURCE), "NetworkCorrection needs a trained network"),
        (lambda: LabelShift(companion="missing.safetensors"), "no companion of LabelShift at .*missing"),
        (lambda: LabelShift(companion=Companion("ITTA", {}, {})), "a companion of ITTA, not one of LabelShift"),
        (lambda: LabelShift(companion=companion(), source_prior=[1.0, 2.0]), "source_prior has 2 numbers"),
        (lambda: tta.online(nn.Linear(4, 10), over(companion(64))), "trained on 64 features .* takes 4: give the"),
        (lambda: tta.online(nn.Linear(64, 7), over(companion(64))), "of 10 classes and .* head has 7: give the"),
        (lambda: tta.online(NoHead(), over(companion(64))), "NoHead has no linear layer that could be its head"),
        (
            lambda: tta.online(Squared(), over(companion(4, 3)))(torch.rand(2, 4)),
            "returned 2 logits that are not the out",
        ),
        (lambda: tta.online(Averaged(), over(companion()))(torch.rand(2, 64)), "10 logits that are not the outputs of"),
        (
            lambda: tta.online(Auxiliary(), over(companion()))(torch.rand(2, 64)),
            "10 logits that are not the outputs of",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make, message):
    with pytest.raises(tta.InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def over(found: Companion) -> LabelShift:
    return LabelShift(None, None, MovingAverage(), found)
