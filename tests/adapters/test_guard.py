"""The guard around methods that help, that do harm at once, and that do harm after a while."""

import copy

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.adapters import EATA, SAR, Adapter, AdapterOutput, BNStats, Facts, Guard, ResetScope, Source, Tent
from tta.adapters.base import Updater, checked_logits
from tta.monitor import CostMeter


class Ruin(Adapter):
    """Multiplies the affine parameters by noise at each step from batch ``after`` on: a collapse at a known time."""

    facts = Facts(needs_gradients=True)

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def prepare(self, model: nn.Module) -> None:
        model.eval()
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(isinstance(module, (nn.GroupNorm, nn.BatchNorm2d)))

    def reset(self) -> None:
        self.batches.zero_()

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        with torch.no_grad():
            logits = checked_logits(model(x))
            self.batches += 1
            if self.batches > self.after:
                generator = torch.Generator().manual_seed(int(self.batches))
                for parameter in self.trainable(model):
                    parameter *= 3.0 * torch.randn(parameter.shape, generator=generator)
        return AdapterOutput(logits)


class Stretch(Adapter):
    """Undoes a loss of contrast that it knows."""

    def prepare(self, model: nn.Module) -> None:
        model.eval().requires_grad_(False)

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        return AdapterOutput(self.predict(model, x))

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        return super().predict(model, (x - 0.4) / 0.1)


@pytest.fixture
def pairs(digits):
    return [(digits[0][:300], digits[1][:300])]


@pytest.fixture
def noisy(digits):
    """Batches of noisy digits in random order, which no network was trained on."""
    generator = torch.Generator().manual_seed(0)
    rows = 800 + torch.randperm(960, generator=generator)
    images = digits[0][rows] + 0.05 * torch.randn(960, 3, 32, 32, generator=generator)
    return list(images.clamp(0, 1).split(32))


@pytest.fixture
def guarded(trained, pairs):
    def make(adapter: Adapter, kind: str = "gn", **arguments) -> tta.OnlineModel:
        lr = arguments.pop("lr", 0.001)
        return tta.online(trained(kind), Guard(adapter, **arguments), source=pairs, lr=lr)

    return make


def frozen(trained, kind, batches):
    model = trained(kind).eval()
    with torch.no_grad():
        return [model(x) for x in batches]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_method_that_changes_nothing_answers_from_the_first_check_on(guarded, trained, noisy):
    online = guarded(Source())
    assert all(torch.equal(online(x), y) for x, y in zip(noisy[:8], frozen(trained, "gn", noisy[:8]), strict=True))
    assert online.adapter.notes() == [
        "sample 32: serves the method: on 256 probes it is not worse than the source model"
    ]


def test_a_helpful_method_answers_as_without_a_guard(guarded, trained, digits):
    grey = [0.1 * x + 0.4 for x in digits[0][800:1440].split(64)]
    online, alone = guarded(Stretch()), tta.online(trained("gn"), Stretch())
    assert all(torch.equal(online(x), alone(x)) for x in grey)
    assert bool(online.adapter.serving)
    assert online.last.scalars["gain_over_source"] > 0.02


def accuracy(logits: list[Tensor], labels: Tensor) -> float:
    return float((torch.cat(logits).argmax(dim=1) == labels).float().mean())


def test_a_method_that_suffers_from_the_class_balance_is_given_up(guarded, trained, digits):
    """Statistics of eight images of one class are no statistics; those of eight images of all classes do less harm."""
    order = digits[1][800:1600].argsort(stable=True)
    labels, batches = digits[1][800:1600][order], digits[0][800:1600][order].split(8)
    online, alone = guarded(BNStats(), "bn", budget=3.0), tta.online(trained("bn"), "bnstats")
    with_guard, without = [online(x) for x in batches], [alone(x) for x in batches]
    source = frozen(trained, "bn", batches)
    assert online.adapter.retired
    assert accuracy(without, labels) < accuracy(source, labels) - 0.5
    assert accuracy(with_guard, labels) > accuracy(without, labels) + 0.4


def test_a_collapse_is_rolled_back_to_the_state_before_it(guarded, trained, noisy):
    online = guarded(Ruin(after=12), failures=2, snapshots=1)
    before = weights(online.model)
    serving = []
    while not int(online.adapter.failed):
        online(noisy[len(serving)])
        serving.append(bool(online.adapter.serving))
    assert all(serving[:12])
    assert not serving[-1]
    assert len(serving) <= 12 + 6
    assert same(weights(online.model), before)  # of the twelve batches before the harm, which changed nothing
    assert int(online.adapter.adapter.batches) < 12  # the method's own state went back with it
    assert "rolls back, serves the source model: on the last probes the method is" in online.adapter.notes()[-1]


def test_after_so_many_failures_the_source_model_answers_for_good(guarded, trained, noisy):
    online = guarded(Ruin(after=0), failures=2)
    before = weights(online.model)
    batches = [*noisy, *noisy]
    answers = [online(x) for x in batches]
    assert online.adapter.retired
    assert "gives up and serves the source model for good" in online.adapter.notes()[-1]
    assert same(weights(online.model), before)
    assert all(torch.equal(a, b) for a, b in zip(answers[-5:], frozen(trained, "gn", batches[-5:]), strict=True))
    assert online.last.reliable is None
    meter = CostMeter(online.model)
    online(noisy[0])
    assert (meter.forwards, meter.backwards) == (32, 0)


def test_arguments_decide_when_it_acts(guarded, noisy):
    def first_failure(**arguments) -> int:
        online = guarded(Ruin(after=3), **arguments)
        for number, x in enumerate(noisy):
            online(x)
            if int(online.adapter.failed):
                return number
        return len(noisy)

    def after(**arguments) -> tuple[float, int]:
        online = guarded(Stretch(), **arguments)
        for x in noisy[:14]:
            online(x)
        return float(online.adapter.gain), int(online.adapter.test.seen)

    as_it_is = after()
    assert as_it_is != after(seed=1)
    assert after(probes=128)[1] > as_it_is[1]
    usual = first_failure()
    assert usual < len(noisy)
    assert usual < first_failure(level=1e-30)
    assert first_failure(tolerance=0.99) == len(noisy)
    assert usual < first_failure(budget=0.2)


def test_checks_cost_what_the_budget_allows(guarded, noisy):
    online = guarded(Source(), budget=0.5, probes=32, images=64)
    meter = CostMeter(online.model)
    for x in noisy:
        online(x)
    samples = 32 * len(noisy)
    first_check = 32 + 2 * 64
    assert meter.forwards - samples <= 0.5 * samples + first_check
    assert meter.forwards - samples > 0.3 * samples


def test_a_run_cut_after_a_failure_goes_on_as_if_it_had_not_been(guarded, everything, noisy):
    online = guarded(Ruin(after=6), budget=2.0)
    cut = 0
    while not int(online.adapter.failed):
        online(noisy[cut])
        cut += 1
    other = guarded(Ruin(after=6), budget=2.0)
    other.load_state_dict(copy.deepcopy(online.state_dict()))
    for x in noisy[cut : cut + 6]:
        assert torch.equal(online(x), other(x))
    assert everything(online) == everything(other)
    assert online.adapter.notes() == other.adapter.notes()


class AsksForReset(Tent):
    """Asks the host to reset everything after each step."""

    def wants_reset(self) -> ResetScope:
        return ResetScope.ALL


def test_resets_that_the_method_asks_for_are_carried_out_and_the_evidence_stays(guarded, noisy):
    online = guarded(AsksForReset(), lr=0.1)
    before = weights(online.model)
    for x in noisy[:4]:
        online(x)
    assert same(weights(online.model), before)
    assert online.resets == 0
    assert online.adapter.notes()
    assert online.optimizer.state_dict()["state"] == {}


def test_source_images_reach_the_guarded_method_too(guarded):
    online = guarded(EATA())
    assert float(online.adapter.adapter.fisher.sum()) > 0.0


def test_bad_input_is_named(trained, pairs, noisy, digits):
    with pytest.raises(tta.InputError, match=r"adapter=None: give the method to guard, such as Guard\(SAR\(\)\)"):
        Guard()
    with pytest.raises(tta.InputError, match="adapter=another Guard: give the method"):
        Guard(Guard(SAR()))
    for wrong in ({"failures": 0}, {"probes": 7}, {"budget": 0.0}, {"snapshots": 0}, {"images": 0}, {"seed": -1}):
        name, value = next(iter(wrong.items()))
        with pytest.raises(tta.InputError, match=f"{name}={value}.*need failures"):
            Guard(SAR(), **wrong)
    with pytest.raises(tta.InputError, match="Guard has seen no labelled source images: pass source="):
        tta.online(trained("gn"), Guard(Tent()))(noisy[0])
    with pytest.raises(tta.InputError, match="source= has batches without labels"):
        tta.online(trained("gn"), Guard(Tent()), source=[digits[0][:40]])
    with pytest.raises(tta.InputError, match=r"images of \(3, 16, 16\) in a stream whose source images are"):
        tta.online(trained("gn"), Guard(Tent()), source=pairs)(torch.rand(4, 3, 16, 16))
