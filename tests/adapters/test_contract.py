"""The promises that every method keeps. A new method is picked up from ``tta.list_adapters()`` and gets all of them.

Where a method needs other hyper-parameters to learn from the small stream, they stand in ``BASE`` of ``conftest.py``.
``CHANGED`` below must name, for each constructor argument, a value under which the method behaves differently.
"""

import copy
import inspect
import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
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
    Source,
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
    "cotta-no-views": ("cotta", {"threshold": 0.0, "select": "all"}),
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
    "lame-rbf": ("lame", {"affinity": "rbf", "neighbours": 5}),
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
    "cmf": {
        "alpha": 0.5,
        "gamma": 0.5,
        "q": 5.0,
        "temperature": 1.0,
        "momentum_probabilities": 0.5,
        "prior_correction": False,
        "views": darker,
        "seed": 1,
        "select": Select(start=0.5),
    },
    "cotta": {
        "threshold": 0.0,
        "restore": 0.5,
        "momentum": 0.5,
        "loss": "cross_entropy",
        "views_count": 3,
        "views": darker,
        "select": Select(types=["linear"]),
        "seed": 1,
    },
    "deyo": {
        "margin": 0.2,
        "weight_margin": 0.2,
        "plpd_threshold": 0.3,
        "patches": 2,
        "select": Select(start=0.5),
        "seed": 1,
    },
    "eata": {"margin": 0.2, "redundancy": 0.3, "fisher_alpha": 2000.0, "select": Select(start=0.5)},
    "eta": {"margin": 0.2, "redundancy": 0.3, "select": Select(start=0.5)},
    "frozenviews": {"count": 1.5, "views": darker, "seed": 1},
    "guard": {
        "adapter": Source(),
        "level": 0.01,
        "tolerance": 0.1,
        "failures": 1,
        "budget": 0.5,
        "probes": 16,
        "images": 30,
        "snapshots": 1,
        "seed": 1,
    },
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
    "lame": {"affinity": "linear", "neighbours": 3, "symmetric": True},
    "memo": {
        "count": 3,
        "views": darker,
        "steps": 2,
        "prior_strength": 1.0,
        "carry_optimizer": True,
        "seed": 1,
    },
    "metadmoe": {"support": 4, "steps": 1},
    "note": {"memory": 3, "period": 3, "bn_momentum": 0.5, "seed": 1},
    "rdumb": {"every": 2, "margin": 0.2, "redundancy": 0.3, "select": Select(start=0.5)},
    "roid": {
        "momentum_source": 0.5,
        "temperature": 1.0,
        "momentum_probabilities": 0.5,
        "prior_correction": False,
        "views": darker,
        "seed": 1,
        "select": Select(start=0.5),
    },
    "rotta": {
        "alpha": 0.5,
        "nu": 0.5,
        "capacity": 3,
        "update_every": 3,
        "lambda_t": 0.0,
        "lambda_u": 0.0,
        "views": darker,
        "select": Select(start=0.5),
        "seed": 1,
    },
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
    "shot": {"pseudo_label_weight": 1.0, "confidence": 0.5, "steps": 2},
    "source": {},
    "t3a": {"filter_size": 1},
    "tent": {"select": Select(start=0.5)},
}

PUBLISHED = ("sar-published",)
"""Train mode, so dropout is on, and momentum steps without reliable samples: as its documentation says."""


EACH_IMAGE = tuple(variant for variant, (name, _) in VARIANTS.items() if name == "memo")
"""Take their steps for each image, from the source and back to it, as their documentation says."""


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


@dataclass(frozen=True)
class Reference:
    """An ordinary run over five batches, which many promises compare with: predictions, losses, and what there was."""

    logits: list[Tensor]
    losses: list[Tensor | None]
    after_two: dict[str, Any]
    saved_after_two: bytes
    parameters: list[Tensor]
    after_five: dict[str, Any]


REFERENCES: dict[tuple[str, str], Reference] = {}


@pytest.fixture
def reference(make, everything, stream):
    """Maker of the reference run; ``test_same_seed_same_result`` is why one serves all."""

    def of(variant: str, kind: str) -> Reference:
        if (variant, kind) not in REFERENCES:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                REFERENCES[variant, kind] = run(make(variant, kind))
        return REFERENCES[variant, kind]

    def run(online: tta.OnlineModel) -> Reference:
        logits, losses = [], []

        def go_on(batches: list[Tensor]) -> dict[str, Any]:
            for x in batches:
                logits.append(online(x))
                losses.append(online.last.loss)
            return everything(online)

        after_two, file = go_on(stream[:2]), io.BytesIO()
        torch.save(online.state_dict(), file)
        go_on(stream[2:4])
        parameters = [p.detach().clone() for p in online.model.parameters()]
        return Reference(logits, losses, after_two, file.getvalue(), parameters, go_on(stream[4:5]))

    return of


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


READS_SOURCE_LABELS = tuple(
    variant for variant, (name, _) in VARIANTS.items() if adapter_class(name).facts.needs_source_labels
)


@cases(*READS_SOURCE_LABELS)
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
def test_asking_for_eval_or_train_mode_changes_nothing(make, reference, stream, variant, kind):
    plain, asked = reference(variant, kind), make(variant, kind)
    for number, x in enumerate(stream[:4]):
        asked.train(number % 2 == 0)
        nn.Sequential(asked).train(number % 3 == 0)
        assert torch.equal(plain.logits[number], asked(x))


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
    if variant not in ("sar-resetting", *EACH_IMAGE):
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


@cases(*PUBLISHED, *EACH_IMAGE)
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
def test_state_dict_round_trip_mid_stream(make, reference, everything, untrained, stream, variant, kind):
    origin = reference(variant, kind)
    loaded = make(variant, kind, model=untrained(kind, seed=7), source=None)
    loaded.load_state_dict(torch.load(io.BytesIO(origin.saved_after_two), weights_only=True))
    assert everything(loaded) == origin.after_two
    assert all(torch.equal(loaded(x), answer) for x, answer in zip(stream[2:5], origin.logits[2:], strict=True))
    assert everything(loaded) == origin.after_five
    loaded.reset()
    assert all(torch.equal(loaded(x), answer) for x, answer in zip(stream, origin.logits[:2], strict=False))


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
def test_same_seed_same_result(make, reference, everything, stream, variant, kind):
    torch.manual_seed(0)
    online = make(variant, kind)
    logits = [online(x) for x in stream[:2]]
    earlier = reference(variant, kind)
    assert all(torch.equal(a, b) for a, b in zip(logits, earlier.logits, strict=False))
    assert everything(online) == earlier.after_two


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


def but_for_the_clock(state: dict[str, Any], variant: str) -> dict[str, Any]:
    """State without RDumb's count of batches, which goes on whatever a batch teaches: as its documentation says."""
    return {k: v for k, v in state.items() if variant != "rdumb" or not k.endswith("batches")}


LEARN_FROM_ALL = (
    "source",
    "frozenviews",
    "bnstats",
    "guard",
    "cmf",
    "roid",
    "cotta",
    "rotta",
    "itta",
    "memo",
    "note",
    "labelshift",
    "metadmoe",
    "sade",
    "tent",
    "lame",
    "shot",
    "t3a",
)


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
        assert but_for_the_clock(everything(online), variant) == but_for_the_clock(before, variant)
    online.adapter.margin = margin
    assert online(stream[2]).isfinite().all()
    assert all(torch.isfinite(p).all() for p in online.model.parameters())


FROM_FEATURES = tuple(
    variant for variant, (name, _) in VARIANTS.items() if name in ("labelshift", "metadmoe", "lame", "t3a")
)
"""Learn from features, or change the head, whatever the logits are: as their documentation says."""

LOG_PROBABILITIES = ("frozenviews",)
"""Return logarithms of probabilities, for zeros ``-ln C``, as their documentation says; tested with the method."""


@cases(*FROM_FEATURES, *EACH_IMAGE, *LOG_PROBABILITIES)  # the head of the second ones trains too, on rounding
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
    assert but_for_the_clock(everything(online), variant) == but_for_the_clock(before, variant)
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
        for number in range(1, (2 if variant in EACH_IMAGE else adapter_class(name).facts.backwards) + 1)
        for kind in KINDS
        if accepts(variant, kind)
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


VIEWS_OF_FEW = ("cmf", "roid")
"""Of a batch of six, two or three have views: their statistics magnify rounding, and so does the prior correction where
it weights a class up. As their documentation says."""


@cases("t3a")  # a prediction that rounding flips goes to the supports of another class, and makes its template
def test_bf16_autocast_is_close_to_fp32(make, stream, variant, kind):
    """Within 4 % of the largest logit. One autocast block around the stream or one around each batch is the same."""
    few = variant in VIEWS_OF_FEW
    lr = 2e-5 if variant in EACH_IMAGE or few else 0.002  # of one image, gradients are far larger than of a batch
    uncorrected = {"prior_correction": False} if few else {}
    full, around, each = (make(variant, kind, lr=lr, **uncorrected) for _ in range(3))
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
def test_works_where_gradients_are_off(make, reference, everything, stream, variant, kind, mode):
    plain, inside = reference(variant, kind), make(variant, kind)
    with mode():
        logits = [inside(x.clone()) for x in stream[:2]]
    assert all(torch.equal(a, b) for a, b in zip(plain.logits[:2], logits, strict=True))
    assert everything(inside) == plain.after_two
    saved = copy.deepcopy(inside.state_dict())
    with mode():
        inside.reset()
    assert not any(tensor.is_inference() for tensor in (*inside.parameters(), *inside.buffers()))
    again = inside(stream[0])
    assert torch.equal(again, plain.logits[0])
    inside.load_state_dict(saved)
    assert torch.equal(inside(stream[2]), plain.logits[2])


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


# The batch that fills the support also brings in the images gathered before it; views are of samples from the mean
# diversity on, which are all of a batch only where they are alike; a memory is full once enough classes were
# predicted: tested with these methods.
@cases("guard", "metadmoe-gathering", "cmf", "roid", "rotta")
def test_declared_costs_are_reached_and_never_exceeded(make, stream, variant, kind):
    online = make(variant, kind)
    facts = online.adapter.facts
    steps_at_most = facts.steps_per_batch * (6 if variant in EACH_IMAGE else 1)
    most = {"forwards": 0, "backwards": 0, "steps": 0}
    meter = CostMeter(online.model)
    for x in stream[:4]:
        online.updater = Counting(online.optimizer)
        meter.forwards = meter.backwards = 0
        online(x)
        steps = online.updater.calls.count("step")
        assert meter.forwards <= facts.forwards * len(x)
        assert meter.backwards <= facts.backwards * len(x)
        assert steps <= steps_at_most
        now = {"forwards": meter.forwards, "backwards": meter.backwards, "steps": steps}
        most = {name: max(most[name], value) for name, value in now.items()}
    assert most == {"forwards": 6 * facts.forwards, "backwards": 6 * facts.backwards, "steps": steps_at_most}


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
def test_reads_gradients_tells_whether_grad_is_looked_at(make, reference, stream, private_gradients, variant, kind):
    open_book, closed_book = reference(variant, kind), make(variant, kind)
    if not learns(closed_book):
        assert not closed_book.adapter.facts.reads_gradients
        return
    closed_book.updater = private_gradients(closed_book.optimizer)
    steps = [(closed_book(x), closed_book.last.loss) for x in stream[:4]]
    open_steps = list(zip(open_book.logits[:4], open_book.losses[:4], strict=True))
    told = [
        everything_said(open_steps) + open_book.parameters,
        everything_said(steps) + list(closed_book.model.parameters()),
    ]
    same = all(torch.equal(a, b) for a, b in zip(*told, strict=True))
    assert same != closed_book.adapter.facts.reads_gradients


def everything_said(steps: list[tuple[Tensor, Tensor | None]]) -> list[Tensor]:
    return [torch.zeros(0) if tensor is None else tensor for step in steps for tensor in step]


@pytest.mark.parametrize("name", tta.list_adapters())
def test_needs_companion_tells_whether_a_plain_classifier_will_do(trained, name):
    cls = adapter_class(name)
    if cls.facts.needs_companion or name == "guard":  # which needs a method
        with pytest.raises((tta.InputError, TypeError)):
            tta.online(trained("gn"), name)
    elif not cls.facts.needs_batch_norm:
        tta.online(trained("gn"), name)


def unreadable() -> Iterator[Tensor]:
    raise AssertionError("source images were read")
    yield


@every_case
def test_needs_source_data_tells_whether_source_images_are_read(make, stream, variant, kind):
    facts = make(variant, kind).adapter.facts
    if facts.needs_source_data or facts.needs_source_labels:
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

OF_THE_GUARD = tuple(("guard", word) for word in inspect.signature(adapter_class("guard")).parameters)
"""On six small batches the source model answers throughout; tested on longer streams in ``test_guard.py``."""


USUAL: dict[str, list[Tensor]] = {}
"""What a method says of the whole stream with its usual arguments."""


@pytest.mark.parametrize(
    ("name", "argument"), [pair for pair in arguments() if pair not in (*ONLY_WARNS, *OF_THE_GUARD)]
)
def test_every_constructor_argument_matters(build, stream, name, argument):
    if argument not in CHANGED.get(name, {}):
        pytest.fail(f"give CHANGED[{name!r}][{argument!r}] a value under which {name} behaves differently")
    if name not in USUAL:
        online = build(name, "bn")
        USUAL[name] = [online(x) for x in stream]
    changed = build(name, "bn", **{argument: CHANGED[name][argument]})
    assert any(not torch.equal(usual, changed(x)) for usual, x in zip(USUAL[name], stream, strict=True))


def test_the_table_names_no_argument_that_does_not_exist():
    assert {(name, argument) for name, row in CHANGED.items() for argument in row} == set(arguments())
