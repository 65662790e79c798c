import copy
import io
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

import tta
from tta.adapters import AdapterOutput, ResetScope
from tta.monitor import StreamMonitor

C = 5


def output(logits: Tensor, **fields: Any) -> AdapterOutput:
    return AdapterOutput(logits, **fields)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 20), min_size=1, max_size=5), st.floats(0.1, 5.0))
def test_accuracy_calibration_and_likelihood_equal_the_references(seed, batches, sharpness):
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(sum(batches), C, generator=generator)
    labels = torch.randint(-1, C, (len(logits),), generator=generator)
    monitor = StreamMonitor(C)
    for batch, target in zip(logits.split(batches), labels.split(batches), strict=True):
        figures = monitor.update(output(batch), target)
    known = labels >= 0
    if not known.any():
        assert all(math.isnan(figures[name]) for name in ("accuracy", "ece", "nll"))
        return
    logits, labels = logits[known], labels[known]
    accuracy = MulticlassAccuracy(C, average="micro")(logits, labels)
    ece = MulticlassCalibrationError(C, n_bins=15)(logits.softmax(1), labels)
    assert figures["accuracy"] == pytest.approx(float(accuracy), abs=1e-6)
    assert figures["ece"] == pytest.approx(float(ece), abs=1e-5)
    assert figures["nll"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-4)
    summary = monitor.summary()
    assert summary["accuracy"] == figures["accuracy"]
    assert summary["samples"] == sum(batches)
    assert summary["batches"] == len(batches)


def test_likelihood_stays_finite_for_a_wrong_certainty():
    monitor = StreamMonitor(2)
    figures = monitor.update(output(torch.tensor([[1000.0, 0.0]])), torch.tensor([1]))
    assert 80 < figures["nll"] < math.inf


def test_figures_are_nan_without_labels_and_without_a_source():
    monitor = StreamMonitor(C)
    figures = monitor.update(output(torch.randn(60, C)))
    unknown = {name for name, value in figures.items() if math.isnan(value)}
    assert unknown == {
        "accuracy",
        "ece",
        "nll",
        "reliable_share",
        "loss",
        "window_accuracy",
        "window_accuracy_paired",
        "source_window_accuracy",
        "source_effective_classes",
        "source_top_class_share",
        "source_agreement",
    }
    assert figures["collapsed"] == figures["below_source"] == 0.0
    summary = monitor.summary()
    assert all(summary[name] is None for name in ("accuracy", "accuracy_paired", "source_accuracy", "ece", "nll"))
    assert summary["per_domain"] == {"stream": {"samples": 0, "accuracy": None, "source_accuracy": None}}


def test_figures_of_a_batch_and_of_the_adapter():
    monitor = StreamMonitor(2)
    logits = torch.tensor([[9.0, -9.0], [9.0, -9.0], [-9.0, 9.0], [9.0, -9.0]])
    finite = torch.tensor([True, True, False, True])
    figures = monitor.update(
        output(
            logits,
            loss=torch.tensor(0.25),
            reliable=torch.tensor([True, False, False, False]),
            finite=finite,
            scalars={"entropy_ema": torch.tensor(0.5)},
            reset=ResetScope.ALL,
        )
    )
    assert figures["loss"] == 0.25
    assert figures["reliable_share"] == 0.25
    assert figures["adapter/entropy_ema"] == 0.5
    assert figures["resets"] == 1
    assert figures["flagged"] == 1
    assert figures["top_class_share"] == 0.75
    share = torch.tensor([0.75, 0.25])
    entropy = float(-(share * share.log()).sum())
    assert figures["effective_classes"] == pytest.approx(math.exp(entropy), rel=1e-5)
    assert figures["batch_marginal_entropy"] == pytest.approx(entropy / math.log(2), rel=1e-4)


def test_domains_are_told_apart():
    monitor = StreamMonitor(2, domains=("fog", "snow"))
    logits = F.one_hot(torch.tensor([0, 0, 1, 1, 0, 1]), 2).float()
    labels, domains = torch.tensor([0, 1, 1, 1, -1, 0]), torch.tensor([0, 0, 0, 1, 1, 1])
    monitor.update(output(logits), labels, domains, torch.ones(6, dtype=torch.long))
    rows = monitor.per_domain()
    assert rows["fog"]["samples"] == 3
    assert rows["fog"]["accuracy"] == pytest.approx(2 / 3)
    assert rows["fog"]["source_accuracy"] == pytest.approx(2 / 3)
    assert rows["snow"] == {"samples": 2, "accuracy": 0.5, "source_accuracy": 0.5}


def test_paired_figures_compare_the_same_samples():
    """The source runs on every second sample, exactly those that the adapted model gets wrong."""
    monitor = StreamMonitor(2)
    labels = torch.zeros(100, dtype=torch.long)
    predictions = (torch.arange(100) + 1) % 2
    source = torch.where(torch.arange(100) % 2 == 0, labels, -1)
    figures = monitor.update(output(F.one_hot(predictions, 2).float()), labels, None, source)
    assert monitor.count("compared") == 50
    assert figures["window_accuracy"] == 0.5
    assert figures["window_accuracy_paired"] == 0.0
    assert figures["source_window_accuracy"] == 1.0
    assert figures["below_source"] == 1.0
    summary = monitor.summary()
    assert (summary["accuracy"], summary["accuracy_paired"], summary["source_accuracy"]) == (0.5, 0.0, 1.0)


def test_collapse_is_noted_with_its_first_sample_and_share_of_batches():
    monitor = StreamMonitor(C, window=50)
    labels = torch.arange(50) % C
    good, bad = F.one_hot(labels, C).float(), F.one_hot(torch.zeros(50, dtype=torch.long), C).float()
    for logits in (good, good, bad, bad):
        figures = monitor.update(output(logits), labels, None, labels)
    assert figures["collapsed"] == figures["below_source"] == 1.0
    collapse = monitor.summary()["collapse"]
    assert collapse == {
        "collapsed": True,
        "collapsed_at": 150,
        "collapsed_share": 0.5,
        "below_source": True,
        "below_source_at": 150,
        "below_source_share": 0.5,
    }
    assert StreamMonitor(C).summary()["collapse"]["collapsed_at"] is None


def test_state_dict_round_trip_mid_stream():
    batches = [(torch.randn(7, C), torch.randint(-1, C, (7,)), torch.randint(2, (7,))) for _ in range(6)]
    monitor = StreamMonitor(C, domains=("a", "b"), window=20)

    def feed(target: StreamMonitor, part: list[Any]) -> list[dict[str, float]]:
        told = []
        for logits, labels, domains in part:
            source = torch.where(torch.arange(7) % 3 == 0, logits.argmin(dim=1), -1)
            told.append(target.update(output(logits, finite=logits[:, 0] > 0), labels, domains, source))
        return told

    feed(monitor, batches[:3])
    file = io.BytesIO()
    torch.save(monitor.state_dict(), file)
    file.seek(0)
    other = StreamMonitor(C, domains=("a", "b"), window=20)
    other.load_state_dict(torch.load(file, weights_only=True))
    copied = copy.deepcopy(monitor)
    told = [str(feed(target, batches[3:])) for target in (monitor, other, copied)]
    assert told[0] == told[1] == told[2]
    assert monitor.summary() == other.summary()


def test_memory_is_constant():
    monitor = StreamMonitor(C, window=30)

    def size() -> int:
        return sum(b.numel() * b.element_size() for b in monitor.buffers())

    monitor.update(output(torch.randn(10, C)), torch.randint(C, (10,)))
    before, keys = size(), list(monitor.state_dict())
    for _ in range(30):
        monitor.update(output(torch.randn(10, C)), torch.randint(C, (10,)))
    assert size() == before
    assert list(monitor.state_dict()) == keys


def test_it_stays_where_it_is_when_its_owner_moves():
    owner = nn.Sequential(nn.Linear(2, 2), StreamMonitor(C))
    owner.to(torch.float16)
    assert owner[0].weight.dtype == torch.float16
    assert owner[1].nll_sum.dtype == torch.float64
    owner.to("meta")
    assert owner[1].counts.device.type == "cpu"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes=1: need at least 2"),
        ({"num_classes": 3, "window": 0}, "window=0: need at least 1 sample"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(tta.InputError, match=message):
        StreamMonitor(**arguments)


def test_classes_and_domains_that_do_not_fit_are_told():
    monitor = StreamMonitor(C)
    with pytest.raises(tta.InputError, match="the model gives 4 classes and the stream has 5"):
        monitor.update(output(torch.zeros(3, 4)))
    with pytest.raises(tta.InputError, match="label 5 in a stream of 5 classes"):
        monitor.update(output(torch.zeros(3, C)), torch.tensor([0, 5, 1]))
    with pytest.raises(tta.InputError, match="domain 2 in a stream whose domains are stream"):
        monitor.update(output(torch.zeros(3, C)), None, torch.tensor([0, 2, 0]))
    assert monitor.count("samples") == 0


def test_source_model_monitored_against_itself_is_never_flagged(trained, digits):
    """On real streams: shuffled, sorted by class, of one class; labelled."""
    model = trained("gn")
    online = tta.online(model, "source")
    images, labels = digits[0][1000:1300], digits[1][1000:1300]
    streams = {"shuffled": torch.arange(300), "sorted": labels.argsort(), "single": (labels == 4).nonzero().flatten()}
    for order in streams.values():
        monitor = StreamMonitor(10, window=100)
        for rows in order.split(30):
            logits = online(images[rows])
            monitor.update(online.last, labels[rows], None, logits.argmax(dim=1))
        collapse = monitor.summary()["collapse"]
        assert not collapse["collapsed"]
        assert not collapse["below_source"]
