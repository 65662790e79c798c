"""Runs that cannot work are refused before the first batch."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pytorch_lightning.strategies import FSDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, nn

from tta.adapters import (
    MEMO,
    NOTE,
    Adapter,
    AdapterOutput,
    Guard,
    LabelShift,
    LogitAdjustment,
    MovingAverage,
    RoTTA,
    Tent,
    Updater,
)
from tta.errors import InputError
from tta.estimates import AverageConfidence
from tta.modules.suitability import check_adaptation
from tta.resets import (
    AccuracyEstimateReset,
    EntropyAverage,
    FisherRestore,
    Never,
    PerBatch,
    PerDomain,
    Periodic,
    ResetProtocol,
    StochasticRestore,
)

pytestmark = pytest.mark.usefixtures("pages_without_figures")

Make = Callable[..., Any]


POST_HOC = (LogitAdjustment(), MovingAverage("adapted"), None, [1.0] * 10)


class Hungry(Tent):
    """Tent that claims to need 30 samples of a domain."""

    facts = replace(Tent.facts, smallest_domain=30)


class Prescient(Tent):
    """Takes one step on everything it is shown beforehand, and none online."""

    facts = replace(Tent.facts, needs_target_data=True)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def observe_target(self, model: nn.Module, batches: Iterable[Tensor], updater: Updater) -> None:
        self.seen.extend(batches)
        super().adapt(model, torch.cat(self.seen), updater)

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        return AdapterOutput(self.predict(model, x))


def test_a_domain_below_what_the_method_needs_is_named(make_stream: Make, make_host: Make, make_trainer: Make) -> None:
    trainer = make_trainer()
    with pytest.raises(InputError, match=r"Hungry learns from 30 samples of a domain and domain 'contrast:5' has 29"):
        trainer.adapt(make_host(Hungry(), protocol="per_domain"), make_stream(samples_per_domain=29))
    trainer.adapt(make_host(Hungry(), protocol="per_domain"), make_stream(samples_per_domain=30))


def test_episodic_batches_below_what_the_method_needs_are_refused(
    make_stream: Make, make_host: Make, make_trainer: Make
) -> None:
    with pytest.raises(InputError, match=r"learns from 30 samples and protocol episodic gives it batches of 16"):
        make_trainer().adapt(make_host(Hungry(), protocol="episodic"), make_stream())


def test_periods_below_what_the_method_needs_are_refused(
    make_stream: Make, make_host: Make, make_trainer: Make
) -> None:
    with pytest.raises(InputError, match=r"from 30 samples and protocol Periodic\(every=1\) resets it after 16: use"):
        make_trainer().adapt(make_host(Hungry(), protocol=Periodic(every=1)), make_stream())
    make_trainer("longer").adapt(make_host(Hungry(), protocol=Periodic(every=2)), make_stream())


class Several:
    """All that the check asks of a trainer: two processes."""

    precision = "32-true"
    strategy: Strategy | None = None
    world_size = 2


@pytest.mark.parametrize("protocol", [PerDomain(), AccuracyEstimateReset(AverageConfidence())])
def test_protocols_that_processes_cannot_keep_in_step_are_refused(protocol: ResetProtocol) -> None:
    for kept in (Never(), PerBatch(), Periodic(), StochasticRestore(), FisherRestore(), EntropyAverage()):
        check_adaptation(Tent(), kept, Several(), None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"needs one process|use --trainer\.devices 1"):
        check_adaptation(Tent(), protocol, Several(), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("adapter", [Guard(Tent()), LabelShift(MEMO(), *POST_HOC), MEMO(), NOTE(), RoTTA()])
def test_methods_that_processes_cannot_share_are_refused(adapter: Adapter) -> None:
    with pytest.raises(InputError, match=r"adapts to the images of one process alone: use --tr") as error:
        check_adaptation(adapter, Never(), Several(), None)  # type: ignore[arg-type]
    assert type(adapter).__name__ in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("strategy", [FSDPStrategy(), ModelParallelStrategy()])
def test_strategies_that_share_parameters_out_are_refused(strategy: Strategy) -> None:
    trainer = Several()
    trainer.strategy = strategy
    with pytest.raises(InputError, match=rf"{type(strategy).__name__} leaves .* use --trainer\.strategy ddp") as error:
        check_adaptation(Tent(), Never(), trainer, None)  # type: ignore[arg-type]
    assert len(str(error.value).splitlines()) == 1


def test_layers_that_wait_for_all_processes_are_refused(make_trainer: Make) -> None:
    trainer = make_trainer(devices=2, strategy="ddp", sync_batchnorm=True)
    with pytest.raises(InputError, match="sync_batchnorm waits for all processes at each pass"):
        check_adaptation(Tent(), Never(), trainer, None)


def test_small_domains_do_not_matter_where_nothing_is_reset(
    make_stream: Make, make_host: Make, make_trainer: Make
) -> None:
    make_trainer().adapt(make_host(Hungry()), make_stream(samples_per_domain=20))


def test_a_transductive_method_sees_the_stream_in_order_first(
    make_stream: Make, make_host: Make, make_trainer: Make, collect: Make
) -> None:
    collected, stream = collect(), make_stream()
    host = make_host(Prescient())
    source = {name: tensor.clone() for name, tensor in host.backbone.state_dict().items()}
    make_trainer("run", collected).adapt(host, stream)
    images = [batch["image"] for batch in stream.train_dataloader()]
    assert all(torch.equal(a, b) for a, b in zip(host.adapter.seen, images, strict=True))
    assert any(not torch.equal(tensor, source[name]) for name, tensor in host.backbone.state_dict().items())
    assert torch.equal(host.adapter.predict(host.backbone, images[0]), collected.logits[0])


def test_a_resumed_transductive_run_does_not_look_again(
    make_stream: Make, make_host: Make, make_trainer: Make, collect: Make
) -> None:
    whole, tail = collect(), collect()
    make_trainer("whole", whole).adapt(make_host(Prescient()), make_stream())
    with pytest.raises(InterruptedError):
        make_trainer("cut", collect(5)).adapt(make_host(Prescient()), make_stream())
    host = make_host(Prescient(), seed=1)
    make_trainer("cut", tail).adapt(host, make_stream(), ckpt_path="last")
    assert host.adapter.seen == []
    assert all(torch.equal(a, b) for a, b in zip(whole.logits[-len(tail.logits) :], tail.logits, strict=True))


@pytest.mark.parametrize("protocol", ["per_domain", "episodic"])
def test_a_transductive_method_is_not_reset(
    protocol: str, make_stream: Make, make_host: Make, make_trainer: Make
) -> None:
    with pytest.raises(InputError, match="Prescient sees the whole stream before it predicts: use protocol continual"):
        make_trainer().adapt(make_host(Prescient(), protocol=protocol), make_stream())
