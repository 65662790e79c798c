"""The Lightning host of the online loop."""

import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader

import tta
from tta.adapters import ROID, Adapter, AdapterOutput, Guard, Tent, Updater
from tta.callbacks import Recorder
from tta.errors import InputError
from tta.estimates import AETTA, AverageThresholdedConfidence
from tta.monitor import FrozenSource, StreamMonitor
from tta.online import OnlineModel
from tta.resets import (
    AccuracyEstimateReset,
    FisherRestore,
    PerDomain,
    Periodic,
    ResetProtocol,
    StochasticRestore,
)

Make = Callable[..., Any]

undrawn = pytest.mark.usefixtures("pages_without_figures")


@undrawn
def test_host_equals_the_plain_loop(
    adapter_name: str, make_stream: Make, make_host: Make, make_trainer: Make, collect: Make
) -> None:
    host, stream, collected = make_host(adapter_name), make_stream(), collect()
    model, adapter = copy.deepcopy(host.backbone), copy.deepcopy(host.adapter)
    make_trainer("run", collected).adapt(host, stream)
    plain = OnlineModel(model, adapter, host.optimizer_factory, source=stream.source_dataloader())
    expected = [plain(batch["image"]) for batch in stream.train_dataloader()]
    assert len(expected) == len(collected.logits) == 6
    assert all(torch.equal(a, b) for a, b in zip(expected, collected.logits, strict=True))
    states = zip(plain.model.state_dict().values(), host.backbone.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)


@undrawn
@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_resumed_equals_uninterrupted(
    adapter_name: str, stop_after: int, make_stream: Make, make_host: Make, make_trainer: Make, collect: Make
) -> None:
    if adapter_name not in WHOLE:
        whole = collect()
        trainer = make_trainer("whole", whole)
        trainer.adapt(make_host(adapter_name), make_stream())
        WHOLE[adapter_name] = whole.logits, _records(trainer)
    logits, records = WHOLE[adapter_name]
    tail = collect()
    with pytest.raises(InterruptedError):
        make_trainer("cut", Recorder(), collect(stop_after)).adapt(make_host(adapter_name), make_stream())
    trainer = make_trainer("cut", tail)
    # The first checkpoint comes at the end of the second batch: a run that stopped before it starts again.
    resumed = make_host(adapter_name, seed=0 if stop_after <= 2 else 1)
    trainer.adapt(resumed, make_stream(), ckpt_path="last")
    assert all(torch.equal(a, b) for a, b in zip(logits[-len(tail.logits) :], tail.logits, strict=True))
    assert _records(trainer) == records


WHOLE: dict[str, tuple[list[Tensor], dict[str, Any]]] = {}
"""Logits and records of the uninterrupted run, by adapter: one serves for all the places to stop at."""


def _records(trainer: Any) -> dict[str, Any]:
    folder = Path(trainer.default_root_dir)
    summary = json.loads((folder / "summary.json").read_text())
    for clock in ("seconds", "samples_per_second", "peak_memory_mb"):
        del summary["cost"][clock]
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    tensors = {**checkpoint["state_dict"], **checkpoint["online_adaptation"][0]["monitor"]}
    state = {name: tensor.nan_to_num().tolist() for name, tensor in tensors.items()}
    files = {name: (folder / name).read_text() for name in ("metrics.csv", "predictions.csv")}
    return {"summary": summary, "state": state, **files}


@undrawn
def test_labels_never_reach_the_adapter(make_stream: Make, make_host: Make, make_trainer: Make, collect: Make) -> None:
    known, unknown = collect(), collect()
    make_trainer("known", known).adapt(make_host(), make_stream())
    host = make_host()
    original = host.training_step

    def without_labels(batch: dict[str, Tensor], batch_idx: int) -> Any:
        return original({**batch, "label": torch.full_like(batch["label"], -1)}, batch_idx)

    host.training_step = without_labels
    make_trainer("unknown", unknown).adapt(host, make_stream())
    assert torch.equal(torch.cat(known.logits), torch.cat(unknown.logits))
    assert host.summary()["accuracy"] is None


@undrawn
def test_per_domain_protocol_starts_afresh_at_each_domain(
    make_stream: Make, make_host: Make, make_trainer: Make, collect: Make
) -> None:
    both, second = collect(), collect()
    make_trainer("both", both).adapt(make_host(protocol="per_domain"), make_stream())
    host = make_host()
    stream = make_stream()
    stream.setup("fit")
    trainer = make_trainer("second", second)
    batches = [batch for batch in stream.train_dataloader() if int(batch["domain"][0]) == 1]
    for batch in batches:
        batch["domain"].zero_()
    loader = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    trainer.fit(host, train_dataloaders=loader)
    assert all(torch.equal(a, b) for a, b in zip(both.logits[3:], second.logits, strict=True))


def test_per_domain_protocol_refuses_mixed_batches(make_stream: Make, make_host: Make, make_trainer: Make) -> None:
    with pytest.raises(InputError, match="one domain per batch"):
        make_trainer().adapt(make_host(protocol="per_domain"), make_stream(order="mixed"))


@undrawn
def test_episodic_protocol_treats_each_batch_as_the_first(
    make_stream: Make, make_host: Make, make_trainer: Make, collect: Make
) -> None:
    episodic, stream = collect(), make_stream()
    host = make_host(protocol="episodic")
    source = copy.deepcopy(host.backbone)
    make_trainer("run", episodic).adapt(host, stream)
    for batch, logits in zip(stream.train_dataloader(), episodic.logits, strict=True):
        fresh = tta.online(copy.deepcopy(source), copy.deepcopy(host.adapter), lr=0.05)
        assert torch.equal(fresh(batch["image"]), logits)


@undrawn
def test_every_reset_gives_back_the_same_optimizer(
    make_stream: Make, make_host: Make, make_trainer: Make, collect: Make
) -> None:
    episodic, stream = collect(), make_stream()
    host = make_host(Tent(), protocol="episodic")
    host.optimizer_factory = lambda parameters: torch.optim.Adagrad(parameters, lr=0.05)
    source = copy.deepcopy(host.backbone)
    make_trainer("run", episodic).adapt(host, stream)
    for batch, logits in zip(stream.train_dataloader(), episodic.logits, strict=True):
        fresh = tta.online(copy.deepcopy(source), "tent", optimizer=torch.optim.Adagrad, lr=0.05)
        assert torch.equal(fresh(batch["image"]), logits)


def test_source_weights_are_those_of_the_file_whenever_modes_were_set(
    make_stream: Make, make_host: Make, make_trainer: Make, tmp_path: Path
) -> None:
    host = make_host(ROID(momentum_source=0.0))
    values = {name: value + 0.1 for name, value in host.backbone.state_dict().items() if value.is_floating_point()}
    torch.save({**host.backbone.state_dict(), **values}, tmp_path / "weights.pt")
    host.weights = str(tmp_path / "weights.pt")
    host.eval()
    make_trainer().adapt(host, make_stream())
    assert float(host.source.drift()) == 0.0


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_frozen_evaluation_changes_nothing(
    stage: str, adapter_name: str, make_stream: Make, make_host: Make, make_trainer: Make
) -> None:
    host = make_host(adapter_name)
    before = copy.deepcopy(host.backbone.state_dict())
    trainer = make_trainer()
    getattr(trainer, stage)(host, datamodule=make_stream())
    after = host.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    folder = Path(trainer.default_root_dir)
    if stage == "test":
        assert 0.0 <= json.loads((folder / "test.json").read_text())["test/accuracy"] <= 1.0
    else:
        assert len(list(csv.DictReader((folder / "predictions.csv").open()))) == 80


def test_source_adapter_evaluates_like_the_plain_model(make_stream: Make, make_host: Make, make_trainer: Make) -> None:
    host, stream = make_host("source"), make_stream()
    make_trainer().test(host, datamodule=stream, verbose=False)
    model = host.backbone.eval()
    right = [(model(b["image"]).argmax(1) == b["label"]) for b in stream.train_dataloader()]
    assert host.trainer.callback_metrics["test/accuracy"] == pytest.approx(float(torch.cat(right).float().mean()))


class _NaNGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * torch.nan


class _Poisoned(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return _NaNGradient.apply(self.network(x))  # type: ignore[no-any-return]


@undrawn
@pytest.mark.parametrize("name", ["tent", "eata", "sar"])
def test_non_finite_gradients_are_skipped_and_counted(
    name: str, make_stream: Make, make_host: Make, make_trainer: Make
) -> None:
    host = make_host(name)
    host.backbone = _Poisoned(host.backbone)
    before = copy.deepcopy(host.backbone.state_dict())
    if name == "eata":
        host.adapter = type(host.adapter)(margin=0.99, redundancy=0.9, fisher_alpha=0.0)
    make_trainer().adapt(host, make_stream())
    assert all(torch.equal(before[key], value) for key, value in host.backbone.state_dict().items())
    assert host.summary()["skipped_steps"] > 0


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_precisions_that_do_not_suit_are_refused(
    precision: str, make_stream: Make, make_host: Make, make_trainer: Make
) -> None:
    with pytest.raises(InputError, match=f"precision {precision} is not supported: use 32-true or bf16-mixed"):
        make_trainer(precision=precision).adapt(make_host(), make_stream())


@undrawn
def test_bf16_is_close_to_full_precision(make_stream: Make, make_host: Make, make_trainer: Make, collect: Make) -> None:
    full, half = collect(), collect()
    make_trainer("full", full).adapt(make_host(lr=1e-3), make_stream())
    make_trainer("half", half, precision="bf16-mixed").adapt(make_host(lr=1e-3), make_stream())
    difference = (torch.cat(full.logits) - torch.cat(half.logits)).abs().max()
    assert 0 < difference < 0.15 * torch.cat(full.logits).std() + 0.05


@undrawn
def test_checkpoint_of_another_adapter_is_refused(make_stream: Make, make_host: Make, make_trainer: Make) -> None:
    trainer = make_trainer()
    trainer.adapt(make_host("tent"), make_stream())
    with pytest.raises(InputError, match=r"made by adapter Tent, this run uses adapter SAR"):
        make_trainer().adapt(make_host("sar"), make_stream(), ckpt_path="last")


@undrawn
def test_missing_and_spoilt_checkpoints_are_refused(
    make_stream: Make, make_host: Make, make_trainer: Make, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no checkpoint at"):
        make_trainer().adapt(make_host(), make_stream(), ckpt_path="last")
    spoilt = tmp_path / "spoilt.ckpt"
    spoilt.write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(InputError, match="cannot read checkpoint") as caught:
        make_trainer().adapt(make_host(), make_stream(), ckpt_path=str(spoilt))
    assert "\n" not in str(caught.value)


def test_wrong_images_and_classes_are_told_before_anything_is_learnt(
    make_stream: Make, make_host: Make, make_trainer: Make
) -> None:
    host = make_host(num_classes=7)
    with pytest.raises(InputError, match=r"output of shape \(1, 10\) and the data has 7 classes"):
        make_trainer().adapt(host, make_stream())

    class OneChannel(nn.Sequential):
        pass

    torch.manual_seed(0)
    grey = OneChannel(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(10))
    grey(torch.rand(2, 1, 32, 32))
    with pytest.raises(InputError, match=r"cannot take images of shape \(3, 32, 32\)"):
        make_trainer("other").adapt(make_host(backbone=grey), make_stream())


class _Confident(Adapter):
    """Predicts one class whatever comes."""

    def prepare(self, model: nn.Module) -> None:
        model.eval().requires_grad_(False)

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        logits = torch.zeros(len(x), 10)
        logits[:, 3] = 9.0
        return AdapterOutput(logits)


@undrawn
def test_collapse_is_flagged_in_summary_and_records(make_stream: Make, make_host: Make, make_trainer: Make) -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    host = make_host(_Confident(), backbone=backbone, source_share=1.0)
    trainer = make_trainer()
    trainer.adapt(host, make_stream(domains=["clean"], samples_per_domain=200))
    spread = host.monitor.window.rows()[2].bincount(minlength=10)
    assert (spread > 0).sum() > 3, "the source model must not be constant itself"
    summary = json.loads((Path(trainer.default_root_dir) / "summary.json").read_text())
    assert summary["collapse"]["collapsed"]
    assert summary["collapse"]["collapsed_at"] <= 80


@undrawn
@pytest.mark.parametrize("name", ["bnstats", "tent", "sar"])
def test_comparing_with_the_source_costs_a_thirtieth(
    name: str, make_stream: Make, make_host: Make, make_trainer: Make
) -> None:
    host = make_host(name)
    make_trainer().adapt(host, make_stream(samples_per_domain=320))
    spent = host.cost.forwards + host.cost.backwards
    assert spent / 30 - 16 <= host.monitor.count("compared") <= spent / 30


@undrawn
def test_comparing_on_a_given_share_of_the_samples(make_stream: Make, make_host: Make, make_trainer: Make) -> None:
    host = make_host("tent", source_share=0.5)
    make_trainer().adapt(host, make_stream())
    assert host.monitor.count("compared") == 40


class GivenUp(Guard):
    """A guard that has given up on its method before the first batch."""

    def reset(self) -> None:
        super().reset()
        self.failed.fill_(self.failures)


@undrawn
def test_the_source_is_not_run_again_for_a_method_that_has_run_it(
    make_stream: Make, make_host: Make, make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, alone, seen = make_host(GivenUp(Tent()), source_share=0.5), make_host("source", source_share=0.5), []
    run = FrozenSource.__call__
    monkeypatch.setattr(FrozenSource, "__call__", lambda self, x: seen.append(len(x)) or run(self, x))
    make_trainer("guarded", Recorder(), limit_val_batches=0).adapt(host, make_stream())
    assert seen == [1]  # whether the network takes such images, before the first batch
    assert host.monitor.count("compared") == 40
    make_trainer("alone", Recorder(), limit_val_batches=0).adapt(alone, make_stream())
    assert sum(seen) == 1 + 1 + 40
    rows = [
        [
            (row["prediction"], row["source_prediction"])
            for row in csv.DictReader((tmp_path / run / "predictions.csv").open())
        ]
        for run in ("guarded", "alone")
    ]
    assert rows[0] == rows[1]
    assert all(source in ("", prediction) for prediction, source in rows[0])


@undrawn
def test_the_bar_shows_accuracy_and_collapse_of_the_last_batch(
    make_stream: Make, make_host: Make, make_trainer: Make
) -> None:
    shown: list[dict[str, float]] = []

    class Bar(ProgressBar):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *rest: Any) -> None:
            metrics = self.get_metrics(trainer, pl_module)
            shown.append({name: metrics[name] for name in ("accuracy", "collapsed")})
            assert shown[-1] == {name: outputs["figures"][name] for name in shown[-1]}

    host = make_host("tent")
    make_trainer("run", Bar(), enable_progress_bar=True).adapt(host, make_stream())
    assert len(shown) == host.monitor.count("batches")
    assert shown[-1]["accuracy"] == host.summary()["accuracy"]


def test_a_bar_that_is_given_or_turned_off_is_not_replaced(make_trainer: Make) -> None:
    given = ProgressBar()
    assert make_trainer("run", given, enable_progress_bar=True).progress_bar_callback is given
    assert make_trainer(enable_progress_bar=False).progress_bar_callback is None
    assert isinstance(make_trainer(enable_progress_bar=None).progress_bar_callback, RichProgressBar)


@undrawn
def test_cost_is_measured_and_validation_is_not_charged(make_stream: Make, make_host: Make, make_trainer: Make) -> None:
    host = make_host("tent")
    make_trainer().adapt(host, make_stream())
    assert (host.cost.forwards, host.cost.backwards) == (80, 80)
    assert host.summary()["forgetting"] is not None


@undrawn
@pytest.mark.parametrize(("name", "ratio"), [("source", 0.0), ("tent", 0.97)])
def test_cost_in_forward_passes(
    name: str, ratio: float, make_stream: Make, make_host: Make, make_trainer: Make, tmp_path: Path
) -> None:
    make_trainer().adapt(make_host(name), make_stream())
    cost = json.loads((tmp_path / "run" / "summary.json").read_text())["cost"]
    assert cost["backward_in_forwards"] == pytest.approx(ratio, abs=0.01)
    passes = cost["forwards_per_sample"] + cost["backward_in_forwards"] * cost["backwards_per_sample"]
    assert cost["forward_equivalents_per_sample"] == pytest.approx(passes)


@undrawn
def test_monitor_state_is_in_the_checkpoint(make_stream: Make, make_host: Make, make_trainer: Make) -> None:
    trainer, host = make_trainer(), make_host()
    trainer.adapt(host, make_stream())
    path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
    (stored,) = torch.load(path, weights_only=True)["online_adaptation"]
    fresh = StreamMonitor(10, host.monitor.domains, host.window)
    fresh.load_state_dict(stored["monitor"])
    assert fresh.count("samples") == 80


class _SpoilBatch(Callback):
    """Fill samples of one batch with NaN."""

    def __init__(self, batch: int, kept: int = 0) -> None:
        self.batch, self.kept = batch, kept

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch:
            batch["image"][self.kept :] = torch.nan


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("kept", [0, 1])
def test_a_spoilt_batch_leaves_records_whole(
    batch: int,
    kept: int,
    adapter_name: str,
    make_stream: Make,
    make_host: Make,
    make_trainer: Make,
    request: pytest.FixtureRequest,
) -> None:
    if batch > 0:  # a first batch that is spoilt leaves most cells empty: that page is drawn
        request.getfixturevalue("pages_without_figures")
    host, trainer = make_host(adapter_name), make_trainer("run", _SpoilBatch(batch, kept))
    trainer.adapt(host, make_stream())
    rows = list(csv.reader((Path(trainer.default_root_dir) / "metrics.csv").open()))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert host.summary()["flagged"] == (16 - kept)
    assert (Path(trainer.default_root_dir) / "report.html").is_file()


@undrawn
def test_a_checkpoint_is_evaluated_on_another_stream_and_window(
    make_stream: Make, make_host: Make, make_trainer: Make, tmp_path: Path
) -> None:
    make_trainer("run").adapt(make_host("tent"), make_stream())
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").glob("*.csv")}
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    host, stream = make_host("tent", window=50, seed=1), make_stream(domains=["clean"])
    make_trainer("frozen").predict(host, datamodule=stream, ckpt_path=checkpoint, weights_only=True)
    adapted = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(adapted[f"backbone.{k}"], v) for k, v in host.backbone.state_dict().items())
    rows = list(csv.DictReader((tmp_path / "frozen" / "predictions.csv").open()))
    assert [int(row["position"]) for row in rows] == list(range(40))
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "run").glob("*.csv")}


@undrawn
def test_resuming_on_another_stream_is_refused(make_stream: Make, make_host: Make, make_trainer: Make) -> None:
    make_trainer().adapt(make_host("tent"), make_stream())
    with pytest.raises(InputError, match="stream with other domains, classes or window"):
        make_trainer().adapt(make_host("tent"), make_stream(domains=["clean"]), ckpt_path="last")


@undrawn
def test_a_finished_run_is_left_as_it_is(
    make_stream: Make, make_host: Make, make_trainer: Make, tmp_path: Path
) -> None:
    make_trainer().adapt(make_host("tent"), make_stream())
    before = (tmp_path / "run" / "summary.json").read_bytes()
    make_trainer().adapt(make_host("tent"), make_stream(), ckpt_path="last")
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


@undrawn
def test_the_frozen_source_is_the_one_of_the_checkpoint(
    make_stream: Make, make_host: Make, make_trainer: Make, collect: Make, tmp_path: Path
) -> None:
    make_trainer("whole").adapt(make_host("tent", source_share=1.0), make_stream())
    with pytest.raises(InterruptedError):
        make_trainer("cut", Recorder(), collect(3)).adapt(make_host("tent", source_share=1.0), make_stream())
    other = make_host("tent", source_share=1.0)
    for layer in other.backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.add_(1.0)  # type: ignore[union-attr]
    make_trainer("cut").adapt(other, make_stream(), ckpt_path="last")
    files = [(tmp_path / run / "predictions.csv").read_text() for run in ("whole", "cut")]
    assert files[0] == files[1]


def test_a_ragged_validation_batch_does_not_cost_the_report(
    make_stream: Make, make_host: Make, make_trainer: Make, tmp_path: Path
) -> None:
    host = make_host("tent")
    stream = make_stream(batch_size=269, samples_per_domain=280)
    make_trainer().adapt(host, stream)
    assert (tmp_path / "run" / "report.html").is_file()
    assert host.forgetting is not None


@undrawn
def test_one_host_serves_several_trainers(make_stream: Make, make_host: Make, make_trainer: Make) -> None:
    host = make_host("tent")
    make_trainer("first").test(host, datamodule=make_stream(domains=["clean"]), verbose=False)
    make_trainer("second").adapt(host, make_stream())
    assert host.monitor.domains == ["contrast:5", "gaussian_noise:5"]


def test_incomplete_batches_are_told(make_host: Make, make_trainer: Make) -> None:
    loader = DataLoader([{"image": torch.rand(2, 3, 32, 32)}], batch_size=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="lacks domain, index"):
        make_trainer().fit(make_host("tent"), train_dataloaders=loader)


PROTOCOLS: dict[str, Callable[[], ResetProtocol]] = {
    "accuracy_estimate": lambda: AccuracyEstimateReset(AETTA(passes=2, window=8), drop=0.0, window=1),
    "fisher_restore": lambda: FisherRestore(share=0.3),
    "per_domain": PerDomain,
    "periodic": lambda: Periodic(every=2),
    "stochastic_restore": lambda: StochasticRestore(probability=0.2),
}


@undrawn
@undrawn
@pytest.mark.parametrize("name", PROTOCOLS)
def test_resumed_equals_uninterrupted_under_every_protocol(
    name: str, make_stream: Make, make_host: Make, make_trainer: Make, collect: Make
) -> None:
    def host(seed: int = 0) -> Any:
        return make_host("tent", seed=seed, protocol=PROTOCOLS[name]())

    whole, tail = collect(), collect()
    uninterrupted = make_trainer("whole", whole, every=1)
    uninterrupted.adapt(host(), make_stream())
    with pytest.raises(InterruptedError):
        make_trainer("cut", Recorder(), collect(4), every=1).adapt(host(), make_stream())
    trainer = make_trainer("cut", tail, every=1)
    trainer.adapt(host(seed=1), make_stream(), ckpt_path="last")
    assert 0 < len(tail.logits) < len(whole.logits)
    assert all(torch.equal(a, b) for a, b in zip(whole.logits[-len(tail.logits) :], tail.logits, strict=True))
    assert _records(trainer) == _records(uninterrupted)


@undrawn
@undrawn
@pytest.mark.parametrize("name", PROTOCOLS)
def test_both_hosts_follow_a_protocol_alike(
    name: str, make_stream: Make, make_host: Make, make_trainer: Make, collect: Make
) -> None:
    host, stream, collected = make_host("tent", protocol=PROTOCOLS[name]()), make_stream(), collect()
    model, adapter = copy.deepcopy(host.backbone), copy.deepcopy(host.adapter)
    make_trainer("run", collected).adapt(host, stream)
    plain = OnlineModel(model, adapter, host.optimizer_factory, resets=PROTOCOLS[name]())
    domain = 0
    for batch, logits in zip(stream.train_dataloader(), collected.logits, strict=True):
        if int(batch["domain"][0]) != domain:
            domain = int(batch["domain"][0])
            plain.new_domain()
        assert torch.equal(plain(batch["image"]), logits)
    assert plain.resets == host.summary()["resets"]
    assert (plain.resets > 0) == (not name.endswith("restore"))
    assert host.summary()["protocol"] == plain.protocol.label


@undrawn
@undrawn
def test_a_checkpoint_of_another_protocol_is_refused_for_resuming_and_evaluated(
    make_stream: Make, make_host: Make, make_trainer: Make, tmp_path: Path
) -> None:
    make_trainer().adapt(make_host("tent", protocol=Periodic(every=2)), make_stream())
    message = r"made under protocol Periodic\(every=2\), this run's is Periodic\(every=3\)"
    with pytest.raises(InputError, match=message):
        make_trainer().adapt(make_host("tent", protocol=Periodic(every=3)), make_stream(), ckpt_path="last")
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    host = make_host("tent", seed=1)
    make_trainer("frozen").predict(host, datamodule=make_stream(), ckpt_path=checkpoint, weights_only=True)
    adapted = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(adapted[f"backbone.{k}"], v) for k, v in host.backbone.state_dict().items())


@undrawn
@undrawn
def test_an_estimate_that_a_protocol_goes_by_sees_the_labelled_source(
    make_stream: Make, make_host: Make, make_trainer: Make
) -> None:
    estimate = AverageThresholdedConfidence()
    make_trainer().adapt(make_host("tent", protocol=AccuracyEstimateReset(estimate)), make_stream())
    assert not estimate.threshold.isnan()
