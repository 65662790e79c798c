"""The promises that every method keeps. A new method is picked up from ``tta.list_adapters()`` and gets all of them.

Where a method needs other hyper-parameters to learn from the small stream, they stand in ``BASE`` of ``conftest.py``.
``CHANGED`` below must name, for each constructor argument, a value under which the method behaves differently.
"""

import copy
import inspect
import io
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tta
from tta.adapters import (
    ExpectationMaximization,
    LabelShiftNetwork,
    LogitAdjustment,
    MovingAverage,
    Select,
    Tent,
    Transductive,
)
from tta.adapters.registry import adapter_class
from tta.companion import Companion
from tta.monitor import CostMeter
from tta.online import TorchUpdater

KINDS = ("bn", "ln", "gn")

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in tta.list_adapters()},
    "bnstats-mixture": ("bnstats", {"batch_weight": 0.3}),
    "bnstats-average": ("bnstats", {"batch_weight": 0.3, "accumulate": True}),
    "eata-no-anchor": ("eata", {"fisher_alpha": 0.0}),
    "itta-bank": ("itta", {"style_source": "bank", "affine": "channel"}),
    "itta-released": ("itta", {"released_protocol": True}),
    "labelshift-post-hoc": (
        "labelshift",
        {"adapter": Tent(), "correction": LogitAdjustment(), "estimator": MovingAverage()},
    ),
    "labelshift-tent": (
        "labelshift",
        {"adapter": Tent(), "estimator": ExpectationMaximization(window=8, concentration=20.0)},
    ),
    "metadmoe-gathering": ("metadmoe", {"support": 12, "steps": 1}),
    "sade-before": ("sade", {"predict": "before"}),
    "sade-entropy": ("sade", {"entropy_weight": 1.0}),
    "sar-resetting": ("sar", {"reset_threshold": 1.5}),
    "sar-published": ("sar", {"published": True}),
    "tent-adam": ("tent", {"optimizer": "adam", "lr": 0.005}),
}

OTHER_LOSS = Companion(
    "ITTA",
    {
        **{"consistency.weight": torch.full((10, 96), 0.9), "consistency.bias": torch.full((10, 96), 0.01)},
        **{f"bank.{name}{row}": torch.ones(4, width) for name in ("mean", "std") for row, width in enumerate((32, 48))},
        "bank.seen": torch.full((2,), 4),
    },
    {
        "blocks": ["layer1", "layer2", "layer3"],
        "shapes": [[32, 8, 8], [48, 4, 4], [192, 2, 2]],
        "nonnegative": [True, True, True],
        "style_blocks": ["layer1", "layer2"],
        **{"head": "fc", "features": 96, "classes": 10},
    },
)
"""A companion of ITTA for the BatchNorm network, other than that of ``conftest.py``."""


def other_network() -> Companion:
    network = LabelShiftNetwork(96, [float(count) for count in range(30, 10, -2)], hidden=2)
    tensors = {name: torch.full_like(tensor, 0.1) for name, tensor in network.tensors().items()}
    tensors["network.source_prior"] = network.source_prior
    for head in ("raw", "uniform"):
        tensors[f"{head}.temperatures"] = torch.tensor(2.0)
        tensors[f"{head}.means"] = (torch.tensor([[0.5], [0.0], [-0.5]]) * network.source_prior.log()).softmax(dim=1)
    return Companion("LabelShift", tensors, {"network": network.settings()})


OTHER_NETWORK = other_network()
"""A companion of LabelShift for the BatchNorm network, other than that of ``conftest.py``."""


def darker(image: Tensor) -> Tensor:
    return image * torch.rand(())


CHANGED: dict[str, dict[str, Any]] = {
    "bnstats": {"batch_weight": 0.5, "accumulate": True},
    "eata": {"margin": 0.2, "redundancy": 0.3, "fisher_alpha": 2000.0, "select": Select(start=0.5)},
    "itta": {
        "companion": OTHER_LOSS,
        "blocks": ["layer2"],
        "style_blocks": ["layer2"],
        "affine": "channel",
        "relu": False,
        "style_source": "bank",
        "steps": 2,
        "alpha": 1.0,
        "seed": 1,
        "released_protocol": True,
    },
    "labelshift": {
        "adapter": Tent(),
        "correction": LogitAdjustment(),
        "estimator": MovingAverage(),
        "companion": OTHER_NETWORK,
        "source_prior": [1.0] * 9 + [2.0],
    },
    "metadmoe": {"support": 4, "steps": 1},
    "sade": {
        "predict": "before",
        "views": darker,
        "seed": 1,
        "entropy_weight": 1.0,
        "freeze_below": 0.99,
        "dominance": 0.3,
        "transductive": Transductive(),
    },
    "sar": {
        "margin": 0.2,
        "rho": 0.5,
        "reset_threshold": 5.0,
        "select": Select(start=0.5),
        "published": True,
    },
    "source": {},
    "tent": {"select": Select(start=0.5)},
}

PUBLISHED = ("sar-published",)
"""Train mode, so dropout is on, and momentum steps without reliable samples: as its documentation says."""


def accepts(variant: str, kind: str) -> bool:
    return kind == "bn" or not adapter_class(VARIANTS[variant][0]).facts.needs_batch_norm


def cases(*left_out: str) -> Any:
    return pytest.mark.parametrize(
        ("variant", "kind"),
        [(v, k) for v in VARIANTS if v not in left_out for k in KINDS if accepts(v, k)],
    )


every_case = cases()
honest_cases = cases(*PUBLISHED)


@pytest.fixture
def make(build):
    def from_variant(variant: str, kind: str, **arguments: Any) -> tta.OnlineModel:
        name, own = VARIANTS[variant]
        return build(name, kind, **{**own, **arguments})

    return from_variant


def learns(online: tta.OnlineModel) -> bool:
    return online.adapter.facts.needs_gradients


# ---- what a method sees ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tta.list_adapters())
def test_a_method_is_given_images_a_model_and_an_updater_and_nothing_else(name):
    cls = adapter_class(name)
    assert list(inspect.signature(cls.adapt).parameters) == ["self", "model", "x", "updater"]
    assert list(inspect.signature(cls.forward).parameters) == ["self", "model", "x", "updater"]
    assert list(inspect.signature(cls.observe_source).parameters) == ["self", "model", "batches"]


class UnreadableLabels(dict):
    def __getitem__(self, key: str) -> Any:
        assert key == "image", f"a method asked for {key!r}"
        return super().__getitem__(key)


@every_case
def test_labels_in_source_batches_are_never_read(make, digits, variant, kind):
    batches = [UnreadableLabels(image=digits[0][:8], label=digits[1][:8])]
    make(variant, kind, source=batches)


# ---- preparation ----------------------------------------------------------------------------------------------------


def configuration(model: nn.Module) -> tuple[Any, ...]:
    modes = [(name, m.training, getattr(m, "track_running_stats", None)) for name, m in model.named_modules()]
    return modes, [(name, p.requires_grad) for name, p in model.named_parameters()]


@every_case
def test_prepare_is_idempotent(make, flat, variant, kind):
    online = make(variant, kind)
    model, first = online.model, configuration(online.model)
    before = flat(model.state_dict())
    online.adapter.prepare(model)
    assert configuration(model) == first
    model.eval()
    online.adapter.prepare(model)
    assert configuration(model) == first
    model.train()
    model.requires_grad_(True)
    online.adapter.prepare(model)
    assert configuration(model)[1] == first[1]
    assert flat(model.state_dict()) == before


@every_case
def test_prepare_keeps_every_key_of_the_state_dict(make, trained, variant, kind):
    model = trained(kind)
    keys = list(model.state_dict())
    make(variant, kind, model=model)
    assert list(model.state_dict()) == keys


@every_case
def test_asking_for_eval_or_train_mode_changes_nothing(make, stream, variant, kind):
    plain, asked = make(variant, kind), make(variant, kind)
    for number, x in enumerate(stream[:4]):
        asked.train(number % 2 == 0)
        nn.Sequential(asked).train(number % 3 == 0)
        assert torch.equal(plain(x), asked(x))


@pytest.mark.parametrize("kind", ["ln", "gn"])
@pytest.mark.parametrize("name", [n for n in tta.list_adapters() if adapter_class(n).facts.needs_batch_norm])
def test_a_method_of_batch_normalisation_refuses_a_network_without_it(build, name, kind):
    with pytest.raises(tta.InputError, match=r"needs batch normalisation and the model has .*(layer|group)_norm"):
        build(name, kind)


# ---- what changes ---------------------------------------------------------------------------------------------------


@every_case
def test_only_declared_parameters_and_buffers_change(make, flat, stream, variant, kind):
    online = make(variant, kind)
    declared = {id(p) for p in online.adapter.trainable(online.model)}
    parameters = {**dict(online.model.named_parameters()), **dict(online.adapter.named_parameters(prefix="adapter"))}
    frozen = {name: p for name, p in parameters.items() if id(p) not in declared}
    adapted = {name: p for name, p in parameters.items() if id(p) in declared}
    before, before_adapted = flat(frozen), flat(adapted)
    buffers = flat(dict(online.model.named_buffers()))
    for x in stream[:3]:
        online(x)
    assert flat(frozen) == before
    assert all(p.grad is None for p in frozen.values())
    if online.adapter.facts.changes_statistics and kind == "bn":
        changed = {k for k, v in flat(dict(online.model.named_buffers())).items() if buffers[k] != v}
        assert changed == {k for k in buffers if k.endswith(("running_mean", "running_var"))}
    else:
        assert flat(dict(online.model.named_buffers())) == buffers
    assert bool(adapted) == learns(online)
    if variant != "sar-resetting":
        assert (flat(adapted) != before_adapted) == learns(online)


@every_case
def test_reset_then_steps_equal_fresh_steps(make, everything, stream, variant, kind):
    online = make(variant, kind)
    start = everything(online)
    fresh = [online(x) for x in stream[:3]]
    end = everything(online)
    online.reset()
    ignored = "/saved/_extra_state/resets"
    assert {k: v for k, v in everything(online).items() if k != ignored} == {
        k: v for k, v in start.items() if k != ignored
    }
    assert online.last is None
    again = [online(x) for x in stream[:3]]
    assert all(torch.equal(a, b) for a, b in zip(fresh, again, strict=True))
    assert {k: v for k, v in everything(online).items() if k != ignored} == {
        k: v for k, v in end.items() if k != ignored
    }


@every_case
def test_predict_changes_nothing(make, everything, stream, variant, kind):
    online = make(variant, kind)
    online(stream[0])
    before = everything(online)
    logits = online.adapter.predict(online.model, stream[1])
    assert everything(online) == before
    assert logits.shape == (6, 10)
    assert torch.isfinite(logits).all()


@honest_cases
def test_prediction_of_a_batch_is_what_predict_would_have_said(make, stream, variant, kind):
    """Before the update or after it, as declared; a moving average of statistics is the one thing that comes first."""
    online = make(variant, kind)
    online(stream[0])
    before = online.adapter.predict(online.model, stream[1])
    logits = online(stream[1])
    after = online.adapter.predict(online.model, stream[1])
    late = online.adapter.facts.predicts_after or getattr(online.adapter, "accumulate", False)
    assert torch.equal(after if late else before, logits)


# ---- carrying state -------------------------------------------------------------------------------------------------


@every_case
def test_state_dict_round_trip_mid_stream(make, everything, untrained, stream, variant, kind):
    online = make(variant, kind)
    origin = [online(x) for x in stream[:2]]
    file = io.BytesIO()
    torch.save(online.state_dict(), file)
    file.seek(0)
    loaded = make(variant, kind, model=untrained(kind, seed=7), source=None)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert everything(loaded) == everything(online)
    assert all(torch.equal(online(x), loaded(x)) for x in stream[2:5])
    assert everything(loaded) == everything(online)
    loaded.reset()
    assert all(torch.equal(loaded(x), before) for x, before in zip(stream, origin, strict=False))


@every_case
def test_state_dict_rolls_a_running_model_back(make, everything, stream, variant, kind):
    online = make(variant, kind)
    start, saved = everything(online), copy.deepcopy(online.state_dict())
    first = [online(x) for x in stream[:2]]
    online.load_state_dict(saved)
    assert everything(online) == start
    assert all(torch.equal(online(x), before) for x, before in zip(stream, first, strict=False))


@every_case
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_mid_stream_go_on_equally_and_apart(make, everything, stream, variant, kind, copied):
    online = make(variant, kind)
    online(stream[0])
    other = copied(online)
    before = everything(online)
    answers = [other(x) for x in stream[1:3]]
    assert everything(online) == before
    assert all(torch.equal(online(x), answer) for x, answer in zip(stream[1:3], answers, strict=True))
    other.reset()
    online.reset()
    assert torch.equal(other(stream[0]), online(stream[0]))


@every_case
def test_same_seed_same_result(make, everything, stream, variant, kind):
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        online = make(variant, kind)
        runs.append(([online(x) for x in stream[:2]], everything(online)))
    assert all(torch.equal(a, b) for a, b in zip(runs[0][0], runs[1][0], strict=True))
    assert runs[0][1] == runs[1][1]


def drop_half(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return F.dropout(output, 0.5, module.training)


@honest_cases
def test_dropout_stays_off(make, trained, stream, variant, kind):
    runs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = trained(kind)
        model.register_forward_hook(drop_half)
        online = make(variant, kind, model=model)
        online.train()
        runs.append([online(x) for x in stream[:2]])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    assert all((logits != 0).all() for logits in runs[0])


# ---- unusual batches ------------------------------------------------------------------------------------------------


@every_case
def test_batch_of_one_works_or_raises_the_documented_error(make, everything, stream, variant, kind):
    online = make(variant, kind)
    online(stream[0])
    batch_statistics = any(isinstance(m, nn.BatchNorm2d) and m.training for m in online.model.modules())
    if batch_statistics:  # the last map of this network is 1x1
        before = everything(online)
        with pytest.raises(tta.InputError, match="batch of 1 leaves one value per channel"):
            online(stream[1][:1])
        assert everything(online) == before
        assert torch.isfinite(online(stream[1])).all()
    else:
        logits = torch.cat([online(stream[1][row : row + 1]) for row in range(3)])
        assert logits.shape == (3, 10)
        assert torch.isfinite(logits).all()
        assert all(torch.isfinite(p).all() for p in online.model.parameters())


@every_case
def test_batch_smaller_than_declared_is_refused(make, stream, variant, kind):
    online = make(variant, kind)
    smallest = max(1, online.adapter.facts.smallest_batch)
    with pytest.raises(tta.InputError, match=f"got a batch of {smallest - 1}: it needs at least {smallest}"):
        online(stream[0][: smallest - 1])


LEARN_FROM_ALL = ("source", "bnstats", "itta", "labelshift", "metadmoe", "sade", "tent")


@cases(*PUBLISHED, *(variant for variant, (name, _) in VARIANTS.items() if name in LEARN_FROM_ALL))
def test_no_reliable_sample_changes_nothing(make, everything, stream, variant, kind):
    """Not even on momentum. Methods that learn from every sample have no such batch; a new one must have ``margin``."""
    online = make(variant, kind)
    online(stream[0])
    before = everything(online)
    margin, online.adapter.margin = online.adapter.margin, -1.0
    logits = online(stream[1])
    assert not online.last.reliable.any()
    assert online.last.loss is None
    assert torch.isfinite(logits).all()
    if variant != "sar-resetting":
        assert everything(online) == before
    online.adapter.margin = margin
    assert online(stream[2]).isfinite().all()
    assert all(torch.isfinite(p).all() for p in online.model.parameters())


FROM_FEATURES = tuple(variant for variant, (name, _) in VARIANTS.items() if name in ("labelshift", "metadmoe"))
"""Learn from features, or change the head, whatever the logits are: as their documentation says."""


@cases(*FROM_FEATURES)
def test_constant_logits_teach_nothing(make, everything, trained, stream, variant, kind):
    model = trained(kind)
    head = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 10][-1]
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    online = make(variant, kind, model=model)
    weights = {name: p.clone() for name, p in model.named_parameters()}
    for x in stream[:2]:
        assert torch.equal(online(x), torch.zeros(6, 10))
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert all(not torch.isnan(b).any() for b in online.model.buffers())
    assert online.updater.skipped_steps == 0


def spoil(x: Tensor, rows: list[int]) -> Tensor:
    x = x.clone()
    for number, row in enumerate(rows):
        x[row, 0, number, number] = (float("nan"), float("inf"), float("-inf"))[number % 3]
    return x


@cases("sar-published")
def test_non_finite_rows_are_flagged_and_teach_nothing(make, everything, stream, variant, kind):
    spoilt, clean = make(variant, kind), make(variant, kind)
    for x in stream[:3]:
        bad = spoil(x, [1, 4, 5])
        finite = torch.tensor([True, False, True, True, False, False])
        logits, expected = spoilt(bad), clean(x[finite])
        assert torch.equal(spoilt.last.finite, finite)
        assert torch.isfinite(logits).all()
        assert torch.equal(logits[finite], expected)
        if spoilt.last.reliable is not None:
            assert not spoilt.last.reliable[~finite].any()
            assert torch.equal(spoilt.last.reliable[finite], clean.last.reliable)
    assert everything(spoilt) == everything(clean)


@cases("sar-published")
def test_batch_without_a_finite_row_changes_nothing(make, everything, stream, variant, kind):
    online = make(variant, kind)
    online(stream[0])
    before, resets = everything(online), online.resets
    logits = online(spoil(stream[1], list(range(6))))
    assert logits.shape == (6, 10)
    assert torch.isfinite(logits).all()
    assert not online.last.finite.any()
    assert everything(online) == before
    assert online.resets == resets


class Poison:
    """A forward hook that makes the ``at``-th backward pass give NaN."""

    def __init__(self) -> None:
        self.at: int | None = None
        self.seen = 0

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(self._spoil)

    def _spoil(self, gradient: Tensor) -> Tensor:
        self.seen += 1
        return gradient * float("nan") if self.seen == self.at else gradient


def poisoned_passes() -> list[tuple[str, str, int]]:
    return [
        (variant, kind, number)
        for variant, (name, _) in VARIANTS.items()
        for number in range(1, adapter_class(name).facts.backwards + 1)
        for kind in KINDS
    ]


@pytest.mark.parametrize(("variant", "kind", "number"), poisoned_passes())
def test_non_finite_gradient_never_reaches_the_weights(make, flat, stream, variant, kind, number):
    online = make(variant, kind)
    model, poison = online.model, Poison()
    model.register_forward_hook(poison)
    online(stream[0])
    before = flat([dict(model.named_parameters()), online.optimizer.state_dict()])
    resets = online.resets
    poison.at, poison.seen = number, 0
    logits = online(stream[1])
    assert poison.seen >= number
    assert torch.isfinite(logits).all()
    assert online.updater.skipped_steps == 1
    if online.resets == resets:
        assert flat([dict(model.named_parameters()), online.optimizer.state_dict()]) == before
    poison.at = None
    assert torch.isfinite(online(stream[2])).all()
    assert online.updater.skipped_steps == 1
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert all(p.grad is None for p in model.parameters())


# ---- precision and grad modes ---------------------------------------------------------------------------------------


@every_case
def test_bf16_autocast_is_close_to_fp32(make, stream, variant, kind):
    """Within 4 % of the largest logit. One autocast block around the stream or one around each batch is the same."""
    full, around, each = (make(variant, kind, lr=0.002) for _ in range(3))
    expected = [full(x) for x in stream[:3]]
    with torch.autocast("cpu", torch.bfloat16):
        got = [around(x) for x in stream[:3]]
    apart = []
    for x in stream[:3]:
        with torch.autocast("cpu", torch.bfloat16):
            apart.append(each(x))
    for a, b, c in zip(expected, got, apart, strict=True):
        assert b.dtype == torch.float32
        assert not torch.equal(a, b)
        assert (a - b).abs().max() <= 0.04 * a.abs().max()
        assert torch.equal(b, c)
    assert all(p.dtype == torch.float32 for p in around.model.parameters())


@every_case
def test_output_is_finite_float32_of_shape_b_c_and_detached(make, stream, variant, kind):
    online = make(variant, kind)
    for x in stream[:2]:
        logits = online(x)
        out = online.last
        assert logits.shape == (6, 10)
        assert logits.dtype == torch.float32
        assert logits is out.logits
        assert torch.isfinite(logits).all()
        assert out.finite.all()
        assert out.finite.dtype == torch.bool
        tensors = [logits, *out.scalars.values()] + [t for t in (out.loss, out.reliable) if t is not None]
        assert not any(t.requires_grad for t in tensors)
        if out.loss is not None:
            assert out.loss.shape == ()
            assert torch.isfinite(out.loss)
        if out.reliable is not None:
            assert out.reliable.shape == (6,)
            assert out.reliable.dtype == torch.bool


@every_case
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(make, everything, stream, variant, kind, mode):
    plain, inside = make(variant, kind), make(variant, kind)
    expected = [plain(x) for x in stream[:2]]
    with mode():
        logits = [inside(x.clone()) for x in stream[:2]]
    assert all(torch.equal(a, b) for a, b in zip(expected, logits, strict=True))
    assert everything(inside) == everything(plain)
    with mode():
        inside.reset()
    assert not any(tensor.is_inference() for tensor in (*inside.parameters(), *inside.buffers()))
    again = inside(stream[0])
    assert torch.equal(again, expected[0])
    inside.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert torch.equal(inside(stream[2]), plain(stream[2]))


# ---- declared facts -------------------------------------------------------------------------------------------------


class Counting(TorchUpdater):
    def __init__(self, optimizer: torch.optim.Optimizer | None) -> None:
        super().__init__(optimizer)
        self.calls: list[str] = []

    def backward(self, loss: Tensor) -> None:
        self.calls.append("backward")
        super().backward(loss)

    def step(self) -> bool:
        self.calls.append("step")
        return super().step()


@cases("metadmoe-gathering")  # the batch that fills the support also brings in the images gathered before it
def test_declared_costs_are_reached_and_never_exceeded(make, stream, variant, kind):
    online = make(variant, kind)
    facts = online.adapter.facts
    most = {"forwards": 0, "backwards": 0, "steps": 0}
    meter = CostMeter(online.model)
    for x in stream[:4]:
        online.updater = Counting(online.optimizer)
        meter.forwards = meter.backwards = 0
        online(x)
        steps = online.updater.calls.count("step")
        assert meter.forwards <= facts.forwards * len(x)
        assert meter.backwards <= facts.backwards * len(x)
        assert steps <= facts.steps_per_batch
        now = {"forwards": meter.forwards, "backwards": meter.backwards, "steps": steps}
        most = {name: max(most[name], value) for name, value in now.items()}
    assert most == {"forwards": 6 * facts.forwards, "backwards": 6 * facts.backwards, "steps": facts.steps_per_batch}


class Untouchable:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"updater.{name} was used")


@every_case
def test_needs_gradients_tells_whether_the_updater_and_an_optimizer_are_used(make, stream, variant, kind):
    online = make(variant, kind)
    assert (online.optimizer is not None) == learns(online)
    online.updater = Untouchable()
    if learns(online):
        with pytest.raises(AssertionError, match="was used"):
            online(stream[0])
    else:
        assert torch.isfinite(online(stream[0])).all()
        assert not any(p.requires_grad for p in (*online.model.parameters(), *online.adapter.parameters()))


@every_case
def test_reads_gradients_tells_whether_grad_is_looked_at(make, stream, private_gradients, variant, kind):
    open_book, closed_book = make(variant, kind), make(variant, kind)
    if not learns(open_book):
        assert not open_book.adapter.facts.reads_gradients
        return
    closed_book.updater = private_gradients(closed_book.optimizer)
    told = []
    for online in (open_book, closed_book):
        steps = [(online(x), online.last.loss) for x in stream[:4]]
        told.append(everything_said(steps) + [p.detach().clone() for p in online.model.parameters()])
    same = all(torch.equal(a, b) for a, b in zip(*told, strict=True))
    assert same != open_book.adapter.facts.reads_gradients


def everything_said(steps: list[tuple[Tensor, Tensor | None]]) -> list[Tensor]:
    return [torch.zeros(0) if tensor is None else tensor for step in steps for tensor in step]


@pytest.mark.parametrize("name", tta.list_adapters())
def test_needs_companion_tells_whether_a_plain_classifier_will_do(trained, name):
    cls = adapter_class(name)
    if cls.facts.needs_companion:
        with pytest.raises((tta.InputError, TypeError)):
            tta.online(trained("gn"), name)
    elif not cls.facts.needs_batch_norm:
        tta.online(trained("gn"), name)


def unreadable() -> Iterator[Tensor]:
    raise AssertionError("source images were read")
    yield


@every_case
def test_needs_source_data_tells_whether_source_images_are_read(make, stream, variant, kind):
    if make(variant, kind).adapter.facts.needs_source_data:
        with pytest.raises(AssertionError, match="source images were read"):
            make(variant, kind, source=unreadable())
        with pytest.raises(tta.InputError, match="source"):
            make(variant, kind, source=None)(stream[0])
    else:
        with_source, without = make(variant, kind, source=unreadable()), make(variant, kind, source=None)
        assert torch.equal(with_source(stream[0]), without(stream[0]))


# ---- every argument matters -----------------------------------------------------------------------------------------


def arguments() -> list[tuple[str, str]]:
    return [(name, word) for name in tta.list_adapters() for word in inspect.signature(adapter_class(name)).parameters]


ONLY_WARNS = (("sade", "dominance"),)
"""Arguments that change nothing but a warning, as their documentation says; tested with the method."""


@pytest.mark.parametrize(("name", "argument"), [pair for pair in arguments() if pair not in ONLY_WARNS])
def test_every_constructor_argument_matters(build, stream, name, argument):
    if argument not in CHANGED.get(name, {}):
        pytest.fail(f"give CHANGED[{name!r}][{argument!r}] a value under which {name} behaves differently")
    usual, changed = build(name, "bn"), build(name, "bn", **{argument: CHANGED[name][argument]})
    outputs = [(usual(x), changed(x)) for x in stream]
    assert not all(torch.equal(a, b) for a, b in outputs)


def test_the_table_names_no_argument_that_does_not_exist():
    assert {(name, argument) for name, row in CHANGED.items() for argument in row} == set(arguments())
