"""The panel that draws estimates of accuracy beside the true one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tta.report import figures, read_run
from tta.report.estimate_panel import draw_estimates
from tta.report.page import render_report
from tta.report.run import Run
from tta.report.svg import to_svg


def with_estimates(run: Run, *names: str) -> Run:
    truth = run.column("samples") / run.edges[-1]
    columns = {f"window_estimate/{name}": 0.5 * truth for name in names}
    compared = {name: {"mean_absolute_error": 0.1234, "correlation": 0.5} for name in names}
    return dataclasses.replace(run, metrics={**run.metrics, **columns}, summary={**run.summary, "estimates": compared})


@pytest.fixture
def run(folders: dict[str, Path]) -> Run:
    return read_run(folders["healthy"])


def test_no_estimate_no_panel(run: Run) -> None:
    assert draw_estimates(run) is None
    assert "estimates" not in figures(run)
    assert (
        draw_estimates(dataclasses.replace(run, metrics={**run.metrics, "window_estimate/a": np.nan * run.edges[1:]}))
        is None
    )


def test_panel_draws_estimates_and_the_truth(run: Run) -> None:
    figure = draw_estimates(with_estimates(run, "aetta", "average_confidence"))
    assert figure is not None
    text = str(to_svg(figure, "figure", "alt"))
    assert "average confidence, off by 12.3" in text
    assert "window accuracy" in text
    lines = {line.get_label().partition(",")[0]: line for line in figure.axes[0].lines}
    assert set(lines) == {"aetta", "average confidence", "window accuracy"}
    assert lines["aetta"].get_ydata()[-1] == pytest.approx(0.5)
    assert lines["window accuracy"].get_ydata()[-1] == pytest.approx(run.column("window_accuracy")[-1])


def test_page_shows_the_panel_below_the_accuracy(run: Run) -> None:
    page = render_report(with_estimates(run, "aetta"))
    assert "Label-free estimates of accuracy" in page
    assert page.index('id="accuracy"') < page.index("Label-free estimates of accuracy") < page.index('id="domains"')
    assert "Label-free estimates" not in render_report(run)


def test_without_labels_the_estimates_stand_alone(folders: dict[str, Path]) -> None:
    run = with_estimates(read_run(folders["unlabelled"]), "aetta")
    run.summary["estimates"]["aetta"]["mean_absolute_error"] = None
    figure = draw_estimates(run)
    assert figure is not None
    assert [line.get_label() for line in figure.axes[0].lines] == ["aetta"]
