"""What every estimate of accuracy promises, and the closed form of each."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tta.errors import InputError
from tta.estimates import (
    AETTA,
    AccuracyEstimate,
    AverageConfidence,
    AverageThresholdedConfidence,
    GeneralizedDisagreement,
)

CLASSES = 4
ALL: dict[str, Callable[[], AccuracyEstimate]] = {
    "aetta": lambda: AETTA(window=8),
    "aetta_source": lambda: AETTA(rate=None, window=8),
    "aetta_layers": lambda: AETTA(layers=["body.0"], window=8),
    "disagreement": GeneralizedDisagreement,
    "confidence": AverageConfidence,
    "thresholded": AverageThresholdedConfidence,
}


class Net(nn.Module):
    """Linear features behind batch normalisation that tracks, a linear head."""

    def __init__(self, features: int = 6) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, features), nn.BatchNorm1d(features), nn.ReLU())
        self.head = nn.Linear(features, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Identity(nn.Module):
    """The input is the feature, and with the identity as weight the logit."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.head = nn.Linear(classes, classes)
        nn.init.eye_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


@pytest.fixture
def net() -> Net:
    return Net().eval()


def images(size: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(size, 5, generator=torch.Generator().manual_seed(seed))


def made(name: str, net: nn.Module) -> AccuracyEstimate:
    estimate = ALL[name]()
    estimate.observe_source(net, [(images(16, seed=9), torch.arange(16) % CLASSES)])
    return estimate


def predicted(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x)


def stepped(net: nn.Module, step: int) -> None:
    """Move weights, as adaptation does."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step)))


def over_stream(estimate: AccuracyEstimate, net: nn.Module, steps: range) -> list[float]:
    values = []
    for step in steps:
        x = images(seed=step)
        logits = predicted(net, x)
        stepped(net, step)
        values.append(float(estimate.update(net, x, logits)))
    return values


@pytest.mark.parametrize("name", ALL)
def test_changes_nothing_in_the_model(name: str, net: Net) -> None:
    net.train()  # running statistics would move
    before = copy.deepcopy(net.state_dict())
    estimate = made(name, net)
    rng = torch.get_rng_state()
    for seed in range(3):
        estimate.update(net, images(seed=seed), predicted(copy.deepcopy(net), images(seed=seed)))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))
    assert torch.equal(rng, torch.get_rng_state())
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not net.head._forward_pre_hooks
    assert not net.body[0]._forward_hooks


@pytest.mark.parametrize("name", ALL)
def test_scores_are_probabilities_of_each_sample(name: str, net: Net) -> None:
    estimate, x = made(name, net), images()
    scores = estimate.scores(net, x, predicted(net, x))
    assert scores.shape == (8,)
    assert scores.dtype == torch.float32
    assert bool(((scores >= 0) & (scores <= 1)).all())
    assert not scores.requires_grad
    assert torch.equal(scores, estimate.scores(net, x, predicted(net, x))), "scores change nothing in the estimate"


@pytest.mark.parametrize("name", ALL)
def test_odd_batches_give_finite_values(name: str, net: Net) -> None:
    for x in (images(1), images(1).expand(6, -1), torch.zeros(3, 5)):
        for logits in (
            predicted(net, x),
            torch.zeros(len(x), CLASSES),
            F.one_hot(torch.zeros(len(x)).long(), CLASSES) * 1e4,
        ):
            estimate = made(name, net)
            for _ in range(3):
                value = estimate.update(net, x, logits.float())
                assert value.shape == ()
                assert 0.0 <= float(value) <= 1.0


@pytest.mark.parametrize("name", ALL)
def test_two_runs_agree_and_a_resumed_one_goes_on(name: str, net: Net) -> None:
    other, resumed = copy.deepcopy(net), copy.deepcopy(net)
    source = copy.deepcopy(net)
    whole = over_stream(made(name, net), net, range(6))
    first = made(name, other)
    assert over_stream(first, other, range(3)) == whole[:3]
    second = ALL[name]()
    second.load_state_dict(first.state_dict())
    assert over_stream(second, other, range(3, 6)) == whole[3:]
    first.reset()
    fresh = made(name, source)
    assert over_stream(first, resumed, range(3)) == whole[:3], "reset forgets the stream and not the source"
    assert {key: value.shape for key, value in fresh.state_dict().items()}.keys() == first.state_dict().keys()


@pytest.mark.parametrize("name", ALL)
def test_declared_passes_are_taken(name: str, net: Net) -> None:
    estimate, seen = made(name, net), []
    net.register_forward_hook(lambda *_: seen.append(1))
    x = images()
    logits = predicted(net, x)
    for _ in range(3):
        seen.clear()
        estimate.update(net, x, logits)
    assert len(seen) == estimate.forwards


def test_aetta_is_the_published_formula(net: Net) -> None:
    estimate, passes = AETTA(rate=0.5, passes=10), []
    net.head.register_forward_hook(lambda _, inputs, output: passes.append(output))
    average = None
    for step in range(3):
        x = images(64, seed=step)
        logits = predicted(net, x)
        passes.clear()
        value = float(estimate.update(net, x, logits))
        assert len(passes) == 11, "the first without dropout, to fetch the features"
        dropped = torch.stack(passes[1:])
        error = float((dropped.argmax(dim=2) != logits.argmax(dim=1)).float().mean())
        share = dropped.softmax(dim=2).mean(dim=(0, 1))
        spread = -float((share * share.log()).sum()) / math.log(CLASSES)
        average = error if average is None else average
        average = 0.6 * average + 0.4 * min(1 - 1 / CLASSES, error / spread**3)
        assert value == pytest.approx(1 - average, abs=1e-5)
        assert 0.0 < error < 0.75


def test_aetta_draws_from_its_seed_anew_in_each_step(net: Net) -> None:
    x = images(64)
    logits = predicted(net, x)
    estimates = [AETTA(rate=0.5, smoothing=0.0, exponent=0.0, seed=seed) for seed in (0, 0, 1)]
    values = [[float(estimate.update(net, x, logits)) for _ in range(3)] for estimate in estimates]
    assert values[0] == values[1] != values[2]
    assert len(set(values[0])) > 1


def test_aetta_counts_the_disagreement_of_known_dropout() -> None:
    """One feature speaks for the predicted class: it disagrees whenever that feature is dropped, half of the time."""
    x = torch.tensor([[1.0, 0.0, 0.0, 0.5]]).repeat(400, 1)
    model = Identity()
    model.head.bias.data[1] = 0.4
    plain = AETTA(rate=0.5, exponent=0.0, smoothing=0.0)
    assert float(plain.update(model, x, predicted(model, x))) == pytest.approx(0.5, abs=0.02)
    seldom = AETTA(rate=0.1, exponent=0.0, smoothing=0.0)
    assert float(seldom.update(model, x, predicted(model, x))) == pytest.approx(0.9, abs=0.02)


def test_aetta_judges_the_predictions_that_were_given() -> None:
    x = 9.0 * torch.eye(CLASSES).repeat(16, 1)
    model = Identity()
    right = AETTA(rate=0.01, smoothing=0.0).update(model, x, predicted(model, x))
    wrong = AETTA(rate=0.01, smoothing=0.0).update(model, x, predicted(model, x).roll(1, dims=1))
    assert float(right) > 0.95
    assert float(wrong) == pytest.approx(1 / CLASSES)


def test_aetta_gives_a_collapsed_model_chance_level() -> None:
    x = torch.tensor([[0.0, 0.0, 0.0, 0.0]]).repeat(64, 1)
    model = Identity()
    model.head.bias.data[2] = 1e3
    for exponent, expected in ((3.0, 1 / CLASSES), (0.0, 1 - 0.5 / 640)):
        estimate = AETTA(exponent=exponent, smoothing=0.0)
        assert float(estimate.update(model, x, predicted(model, x))) == pytest.approx(expected)


def test_aetta_takes_single_images_together() -> None:
    x = 9.0 * torch.eye(CLASSES).repeat(16, 1)
    model = Identity()
    estimate = AETTA(rate=0.01)
    for image in x.split(1):
        value = estimate.update(model, image, predicted(model, image))
    assert float(value) > 0.9
    alone = AETTA(rate=0.01, window=1)
    for image in x.split(1):
        value = alone.update(model, image, predicted(model, image))
    assert float(value) < 0.5, "the entropy of one confident prediction looks like a collapse"


def test_aetta_keeps_its_average_when_predictions_are_not_finite(net: Net) -> None:
    estimate, x = AETTA(), images(64)
    before = estimate.update(net, x, predicted(net, x)).clone()
    broken = copy.deepcopy(net)
    broken.head.weight.data.fill_(math.nan)
    assert torch.equal(estimate.update(broken, x, predicted(broken, x)), before)


def test_aetta_sets_its_rate_on_the_source(net: Net) -> None:
    model, x = Identity(), torch.randn(256, CLASSES, generator=torch.Generator().manual_seed(0))
    right = torch.rand(256, generator=torch.Generator().manual_seed(1)) < 0.7
    labels = torch.where(right, x.argmax(dim=1), (x.argmax(dim=1) + 1) % CLASSES)
    estimate = AETTA(rate=None, smoothing=0.0)
    estimate.observe_source(model, zip(x.split(100), labels.split(100), strict=True))
    assert 0.02 < float(estimate.chosen) < 0.89
    assert float(estimate.update(model, x, predicted(model, x))) == pytest.approx(float(right.float().mean()), abs=0.05)
    order = labels.argsort()
    by_class = AETTA(rate=None)
    by_class.observe_source(model, zip(x[order].split(16), labels[order].split(16), strict=True))
    assert float(by_class.chosen) == pytest.approx(float(estimate.chosen), abs=0.05), (
        "the order of the images is nothing"
    )
    fixed = AETTA(rate=0.4)
    fixed.observe_source(model, [(x, labels)])
    assert float(fixed.chosen) == pytest.approx(0.4)
    x = images()
    logits = predicted(net, x)
    with pytest.raises(InputError, match="rate=None has no rate yet"):
        AETTA(rate=None).update(net, x, logits)


def test_disagreement_compares_with_the_step_before(net: Net) -> None:
    estimate, earlier, expected, given = GeneralizedDisagreement(), copy.deepcopy(net), [], []
    for step in range(4):
        x, before = images(64, seed=step), copy.deepcopy(net)
        logits = predicted(net, x)
        stepped(net, step)
        given.append(float(estimate.update(net, x, logits)))
        expected.append(float((predicted(earlier, x).argmax(1) == logits.argmax(1)).float().mean()))
        earlier = before
    assert given[0] == 1.0
    assert given[2:] == pytest.approx(expected[2:])
    assert min(expected[2:]) < 1.0


def test_disagreement_of_a_model_that_has_not_moved_since(net: Net) -> None:
    estimate, earlier, x = GeneralizedDisagreement(lag=1), copy.deepcopy(net), images(64)
    estimate.update(net, x, predicted(net, x))
    stepped(net, 0)
    now = predicted(net, x)
    assert float(estimate.update(net, x, now)) == pytest.approx(
        float((predicted(earlier, x).argmax(1) == now.argmax(1)).float().mean())
    )


def test_disagreement_starts_again_when_other_weights_are_trained(net: Net) -> None:
    estimate, x = GeneralizedDisagreement(lag=1), images()
    estimate.update(net, x, predicted(net, x))
    net.head.requires_grad_(False)
    assert float(estimate.update(net, x, -predicted(net, x))) == 1.0


def test_disagreement_goes_back_to_a_state_with_fewer_weights(net: Net) -> None:
    estimate, x = GeneralizedDisagreement(), images()
    estimate.update(net, x, predicted(net, x))
    early = copy.deepcopy(estimate.state_dict())
    estimate.update(net, x, predicted(net, x))
    estimate.load_state_dict(early)
    assert torch.equal(estimate.weights, early["weights"])


def test_confidence_is_the_mean_largest_probability() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
    estimate = AverageConfidence()
    assert float(estimate.update(nn.Identity(), logits, logits)) == pytest.approx((0.75 + 0.5) / 2)
    halved = AverageConfidence(temperature=2.0).update(nn.Identity(), logits, logits)
    root = math.sqrt(3.0)
    assert float(halved) == pytest.approx((root / (root + 1) + 0.5) / 2)


@pytest.mark.parametrize("score", ["entropy", "confidence"])
def test_threshold_leaves_the_source_accuracy_above(score: str) -> None:
    logits = torch.stack([torch.arange(10.0), torch.zeros(10)], dim=1)  # ever more confident of class 0
    labels = torch.tensor([1, 0, 1, 0, 0, 0, 0, 1, 0, 0])  # of which 6 are right, and the first is a tie for class 0
    estimate = AverageThresholdedConfidence(score)
    estimate.observe_source(nn.Identity(), [(logits[:4], labels[:4]), (logits[4:], labels[4:])])
    assert estimate.scores(nn.Identity(), logits, logits).tolist() == [0.0] * 3 + [1.0] * 7
    target = torch.tensor([[2.9, 0.0], [0.0, 3.1], [3.0, 0.0], [0.0, 0.0]])
    assert float(estimate.update(nn.Identity(), target, target)) == 0.5


def test_threshold_at_the_ends() -> None:
    logits = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    right, wrong = AverageThresholdedConfidence(), AverageThresholdedConfidence()
    right.observe_source(nn.Identity(), [(logits, torch.tensor([0, 0]))])
    wrong.observe_source(nn.Identity(), [(logits, torch.tensor([1, 1]))])
    assert float(right.update(nn.Identity(), logits, logits)) == 1.0
    assert float(wrong.update(nn.Identity(), logits, logits)) == 0.0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AETTA(rate=0.0), "rate=0.0"),
        (lambda: AETTA(rate=1.0), "0 < rate < 1"),
        (lambda: AETTA(smoothing=1.0), "smoothing=1.0"),
        (lambda: AETTA(exponent=-1.0), "exponent=-1.0"),
        (lambda: AETTA(passes=0), "passes=0"),
        (lambda: AETTA(window=0), "window=0"),
        (lambda: AETTA(seed=-1), "seed=-1"),
        (lambda: AETTA(rate=None, layers=["body"]), "give a rate with layers"),
        (lambda: GeneralizedDisagreement(lag=0), "lag=0"),
        (lambda: AverageConfidence(temperature=0.0), "temperature=0.0"),
        (lambda: AverageThresholdedConfidence("margin"), "score='margin'"),
    ],
)
def test_arguments_out_of_range_are_refused(make: Callable[[], AccuracyEstimate], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_said(net: Net) -> None:
    x = images()
    logits = predicted(net, x)
    with pytest.raises(InputError, match="has no threshold"):
        AverageThresholdedConfidence().update(net, x, logits)
    for estimate in (AverageThresholdedConfidence(), AETTA(rate=None)):
        with pytest.raises(InputError, match="no labelled source image"):
            estimate.observe_source(net, [])
    with pytest.raises(InputError, match="has no linear layer"):
        AETTA().update(nn.Identity(), x, x)
    with pytest.raises(InputError, match="has no module 'stem'"):
        AETTA(layers=["stem"]).update(net, x, logits)
    tokens = nn.Sequential(nn.Unflatten(1, (5, 1)), nn.Linear(1, CLASSES), nn.Flatten())
    with pytest.raises(InputError, match="one row of features per image"):
        AETTA().update(tokens, x, logits)
