"""Comparing with the source model, run beside the adapted one or recorded before."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

from tta.callbacks import Recorder
from tta.errors import InputError
from tta.modules.source_comparison import SourceComparison
from tta.monitor import FrozenSource

Make = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("pages_without_figures")


@pytest.fixture
def recorded(make_stream: Make, make_host: Make, make_trainer: Make, tmp_path: Path) -> str:
    make_trainer("source", Recorder(), limit_val_batches=0).adapt(make_host("source"), make_stream())
    return str(tmp_path / "source" / "predictions.csv")


def records(folder: Path) -> tuple[str, str, dict[str, Any]]:
    summary = json.loads((folder / "summary.json").read_text())
    for clock in ("seconds", "samples_per_second", "peak_memory_mb"):
        del summary["cost"][clock]
    return (folder / "predictions.csv").read_text(), (folder / "metrics.csv").read_text(), summary


@pytest.mark.parametrize("name", ["bnstats", "sar"])
def test_recorded_predictions_equal_those_of_the_source_run_on_all(
    name: str,
    recorded: str,
    make_stream: Make,
    make_host: Make,
    make_trainer: Make,
    collect: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, seen, logits = FrozenSource.__call__, [], {}
    monkeypatch.setattr(FrozenSource, "__call__", lambda self, x: seen.append(len(x)) or run(self, x))
    weights = {}
    for folder, arguments in {"run": {"source_share": 1.0}, "read": {"source_predictions": recorded}}.items():
        seen.clear()
        host, collected = make_host(name, **arguments), collect()
        make_trainer(folder, collected, limit_val_batches=0).adapt(host, make_stream())
        logits[folder], weights[folder] = torch.cat(collected.logits), host.backbone.state_dict()
    assert seen == [1]  # whether the network takes such images, before the first batch
    assert torch.equal(logits["run"], logits["read"])
    assert all(torch.equal(value, weights["read"][key]) for key, value in weights["run"].items())
    assert records(tmp_path / "run") == records(tmp_path / "read")
    rows = csv.DictReader((tmp_path / "read" / "predictions.csv").open())
    assert all(row["source_prediction"].isdecimal() for row in rows)


def test_resumed_equals_uninterrupted(
    recorded: str, make_stream: Make, make_host: Make, make_trainer: Make, collect: Make, tmp_path: Path
) -> None:
    def run(folder: str, *callbacks: Callback, ckpt_path: str | None = None) -> None:
        trainer = make_trainer(folder, *callbacks, limit_val_batches=0)
        trainer.adapt(make_host("tent", source_predictions=recorded), make_stream(), ckpt_path=ckpt_path)

    run("whole")
    with pytest.raises(InterruptedError):
        run("cut", Recorder(), collect(3))
    run("cut", ckpt_path="last")
    assert records(tmp_path / "whole") == records(tmp_path / "cut")


def test_another_order_is_refused(recorded: str, make_stream: Make, make_host: Make, make_trainer: Make) -> None:
    with pytest.raises(InputError, match=r"predictions\.csv has index \d+ of domain 'contrast:5' at position \d+"):
        make_trainer().adapt(make_host("tent", source_predictions=recorded), make_stream(seed=1))


def test_a_file_that_is_not_there_is_told_before_the_stream(
    make_stream: Make, make_host: Make, make_trainer: Make, tmp_path: Path
) -> None:
    host = make_host("tent", source_predictions=str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match=r"cannot read .*none\.csv \(No such file"):
        make_trainer().adapt(host, make_stream())
    make_trainer("frozen").predict(host, datamodule=make_stream())


def test_predictions_of_another_method_are_refused(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"adapter": "Tent"}')
    with pytest.raises(InputError, match=r"predictions\.csv is of a run of adapter Tent: give .* of adapter Source"):
        SourceComparison(None, str(tmp_path / "predictions.csv")).open(1)


def test_recorded_predictions_take_the_place_of_a_share_and_one_process(make_host: Make) -> None:
    with pytest.raises(
        InputError, match=r"source_share=0\.5 and source_predictions='a\.csv': .* leave source_share out"
    ):
        make_host("tent", source_share=0.5, source_predictions="a.csv")
    with pytest.raises(InputError, match=r"source_predictions='a\.csv' .* shared by 2: use source_share, or --trainer"):
        SourceComparison(None, "a.csv").open(2)
