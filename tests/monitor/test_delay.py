import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tta.adapters import AdapterOutput
from tta.monitor import StreamMonitor

C = 4


def play(monitor, batches, seed=0, start=0, stop=None):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(sum(batches), C, generator=generator)
    labels = torch.randint(-1, C, (len(logits),), generator=generator)
    domains = torch.randint(0, 2, (len(logits),), generator=generator)
    source = torch.randint(-1, C, (len(logits),), generator=generator)
    parts = zip(*(tensor.split(batches) for tensor in (logits, labels, domains, source)), strict=True)
    for batch, target, domain, frozen in list(parts)[start:stop]:
        figures = monitor.update(AdapterOutput(batch), target, domain, frozen)
    return figures, logits, labels


def delayed(delay, window=20):
    return StreamMonitor(C, ("a", "b"), window, label_delay=delay)


@given(st.integers(0, 30), st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 1000))
def test_accuracy_before_the_end_is_that_of_the_samples_whose_labels_have_come(delay, batches, seed):
    monitor = delayed(delay)
    figures, logits, labels = play(monitor, batches, seed)
    come = max(0, sum(batches) - delay)
    known = labels[:come] >= 0
    right = (logits[:come].argmax(1) == labels[:come])[known].float()
    assert figures["accuracy"] == pytest.approx(float(right.mean()), nan_ok=True)
    assert figures["samples"] == sum(batches)


@given(st.integers(0, 30), st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 1000))
def test_after_the_end_every_figure_of_the_whole_equals_that_without_delay(delay, batches, seed):
    prompt, late = delayed(0), delayed(delay)
    for monitor in (prompt, late):
        play(monitor, batches, seed)
        monitor.settle()
    for name in ("accuracy", "accuracy_paired", "source_accuracy", "per_domain", "samples"):
        assert late.summary()[name] == prompt.summary()[name]
    for name in ("ece", "nll"):
        assert late.summary()[name] == pytest.approx(prompt.summary()[name], abs=1e-9)


def test_the_window_knows_a_label_when_it_comes_and_forgets_what_fell_out():
    monitor = StreamMonitor(2, window=4, label_delay=2)
    right, wrong = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    zero = torch.tensor([0])
    seen = [monitor.update(AdapterOutput(logits), zero)["window_accuracy"] for logits in (right, right, wrong, wrong)]
    assert math.isnan(seen[0])
    assert math.isnan(seen[1])
    assert seen[2:] == [1.0, 1.0]
    assert [monitor.update(AdapterOutput(right), zero)["window_accuracy"] for _ in range(2)] == [0.5, 0.0]


def test_label_free_figures_do_not_wait():
    prompt, late = (play(delayed(delay), [8, 8])[0] for delay in (0, 1000))
    for name in ("marginal_entropy", "effective_classes", "source_agreement", "batch_marginal_entropy"):
        assert late[name] == prompt[name]
    assert math.isnan(late["accuracy"])
    assert math.isnan(late["window_accuracy"])


def test_state_dict_carries_the_waiting_samples():
    whole, first, second = delayed(7), delayed(7), delayed(7)
    play(whole, [5, 5, 5])
    play(first, [5, 5, 5], stop=2)
    second.load_state_dict(first.state_dict())
    play(second, [5, 5, 5], start=2)
    for monitor in (whole, second):
        monitor.settle()
    assert whole.summary() == second.summary()
