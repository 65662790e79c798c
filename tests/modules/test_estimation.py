"""Estimates of accuracy in the Lightning host."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tta.adapters import Source
from tta.callbacks import Recorder
from tta.errors import InputError
from tta.estimates import (
    AETTA,
    AccuracyEstimate,
    AverageConfidence,
    AverageThresholdedConfidence,
    GeneralizedDisagreement,
)
from tta.online import OnlineModel

pytestmark = pytest.mark.usefixtures("pages_without_figures")

Make = Callable[..., Any]
NAMES = ("aetta", "aetta_2", "generalized_disagreement", "average_confidence", "thresholded_confidence")


def every() -> list[AccuracyEstimate]:
    second = AETTA(rate=None, window=20)
    return [AETTA(), second, GeneralizedDisagreement(), AverageConfidence(), AverageThresholdedConfidence()]


def columns(folder: Path) -> dict[str, list[str]]:
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_estimates_change_nothing_else(make_stream: Make, make_host: Make, make_trainer: Make, tmp_path: Path) -> None:
    make_trainer("without", Recorder()).adapt(make_host("tent"), make_stream())
    make_trainer("with", Recorder()).adapt(make_host("tent", estimates=every()), make_stream())
    without, beside = columns(tmp_path / "without"), columns(tmp_path / "with")
    added = {f"{kind}/{name}" for kind in ("estimate", "window_estimate") for name in NAMES}
    assert set(beside) - set(without) == added
    assert {name: beside[name] for name in without} == without
    assert all(cell for name in added for cell in beside[name])


def test_host_estimates_what_the_plain_loop_does(
    make_stream: Make, make_host: Make, make_trainer: Make, tmp_path: Path
) -> None:
    host = make_host("tent", lr=2.0, estimates=[AETTA(), GeneralizedDisagreement()])
    plain = OnlineModel(make_host("tent").backbone, make_host("tent").adapter, host.optimizer_factory)
    expected = [AETTA(), GeneralizedDisagreement()]
    stream = make_stream()
    make_trainer("run", Recorder()).adapt(host, stream)
    found = columns(tmp_path / "run")
    for step, batch in enumerate(stream.train_dataloader()):
        logits = plain(batch["image"])
        for estimate in expected:
            value = float(estimate.update(plain.model, batch["image"], logits))
            assert float(found[f"estimate/{estimate.name}"][step]) == pytest.approx(value, abs=1e-6)
    assert min(map(float, found["estimate/generalized_disagreement"])) < 1.0


def test_resumed_estimates_go_on(
    make_stream: Make, make_host: Make, make_trainer: Make, collect: Make, tmp_path: Path
) -> None:
    def host() -> Any:
        return make_host("tent", estimates=every(), window=20)

    make_trainer("whole", Recorder()).adapt(host(), make_stream())
    with pytest.raises(InterruptedError):
        make_trainer("cut", Recorder(), collect(3)).adapt(host(), make_stream())
    make_trainer("cut", Recorder()).adapt(host(), make_stream(), ckpt_path="last")
    assert columns(tmp_path / "cut") == columns(tmp_path / "whole")
    summaries = [json.loads((tmp_path / name / "summary.json").read_text())["estimates"] for name in ("cut", "whole")]
    assert summaries[0] == summaries[1]
    with pytest.raises(InputError, match="other estimates of accuracy"):
        make_trainer("cut").adapt(make_host("tent", estimates=[AETTA()], window=20), make_stream(), ckpt_path="last")


def test_summary_compares_with_the_truth_over_windows(
    make_stream: Make, make_host: Make, make_trainer: Make, tmp_path: Path
) -> None:
    make_trainer("run", Recorder()).adapt(make_host("tent", estimates=every(), window=32), make_stream())
    found = {name: np.array(cells) for name, cells in columns(tmp_path / "run").items()}
    full = found["samples"].astype(int) >= 32
    truth = found["window_accuracy"][full].astype(float)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["estimates"]
    assert list(summary) == list(NAMES)
    for name, row in summary.items():
        estimate = found[f"window_estimate/{name}"][full].astype(float)
        assert row["windows"] == full.sum() == 5
        assert row["mean_absolute_error"] == pytest.approx(np.abs(estimate - truth).mean())
        if row["correlation"] is not None:
            assert row["correlation"] == pytest.approx(np.corrcoef(estimate, truth)[0, 1], abs=1e-4)
    assert summary["average_confidence"]["correlation"] is not None
    assert [summary[name]["forwards_per_sample"] for name in NAMES] == [1, 1, 1, 0, 0]


def test_labels_change_no_estimate(make_stream: Make, make_host: Make, make_trainer: Make, tmp_path: Path) -> None:
    host = make_host("tent", estimates=every())
    make_trainer("known", Recorder()).adapt(host, make_stream())
    blind = make_host("tent", estimates=every())
    original = blind.training_step
    blind.training_step = lambda batch, batch_idx: original(
        {**batch, "label": torch.full_like(batch["label"], -1)}, batch_idx
    )
    make_trainer("unknown", Recorder()).adapt(blind, make_stream())
    known, unknown = columns(tmp_path / "known"), columns(tmp_path / "unknown")
    for name in NAMES:
        assert known[f"estimate/{name}"] == unknown[f"estimate/{name}"]
    summary = json.loads((tmp_path / "unknown" / "summary.json").read_text())["estimates"]
    assert summary["aetta"]["mean_absolute_error"] is summary["aetta"]["correlation"] is None
    assert 0.0 <= summary["aetta"]["mean"] <= 1.0


def test_threshold_comes_from_the_source_model(make_stream: Make, make_host: Make, make_trainer: Make) -> None:
    estimate, stream = AverageThresholdedConfidence(), make_stream()
    host = make_host(Source(), estimates=[estimate])
    make_trainer().adapt(host, stream)
    batches = [(batch["image"], batch["label"]) for batch in stream.source_dataloader()]
    expected = AverageThresholdedConfidence()
    expected.observe_source(host.backbone, batches)
    assert float(estimate.threshold) == float(expected.threshold)


def test_source_images_that_are_missing_are_said(
    make_stream: Make, make_host: Make, make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = make_stream()
    monkeypatch.setattr(type(stream), "source_dataloader", None)
    host = make_host("tent", estimates=[AverageThresholdedConfidence()])
    with pytest.raises(InputError, match="must see labelled source images, and DigitsStream has no source_dataloader"):
        make_trainer().adapt(host, stream)
