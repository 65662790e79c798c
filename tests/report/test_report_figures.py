"""What the figures show, and what they leave out."""

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import tta.report.run
from tta.report import figures, read_run
from tta.report.classes import class_shares
from tta.report.figures import draw_accuracy, draw_domains
from tta.report.style import plain, spans, thin
from tta.report.svg import to_svg

PANELS = {"effective_classes", "top_class", "entropy", "agreement", "drift", "gradient", "reliable", "loss", "adapter"}
ALL = PANELS | {"accuracy", "domains", "classes", "work", "speed", "memory", "calibration"}
ABSENT = {
    "healthy": set(),
    "unlabelled": {"domains", "calibration"},
    "no_source": {"agreement"},
    "gradient_free": {"gradient", "reliable", "loss", "adapter"},
    "one_batch": set(),
    "many_classes": set(),
    "batch_of_one": set(),
}


@pytest.fixture(scope="module")
def drawn_cases(folders: dict[str, Path]) -> dict[str, dict[str, Figure]]:
    return {case: figures(read_run(folders[case])) for case in ABSENT}


@pytest.mark.parametrize("case", ABSENT)
def test_every_figure_with_data_is_drawn(drawn_cases: dict[str, dict[str, Figure]], case: str) -> None:
    drawn = drawn_cases[case]
    assert set(drawn) == ALL - ABSENT[case]
    assert all(isinstance(figure, Figure) for figure in drawn.values())


def _texts(figure: Figure, name: str = "figure") -> str:
    return str(to_svg(figure, name, "alt"))


def test_accuracy_marks_domains_collapse_and_resets(folders: dict[str, Path]) -> None:
    text = _texts(draw_accuracy(read_run(folders["collapsing"])))
    for word in ("motion_blur:5", "collapsed", "below source", "resets", "frozen source model", "window accuracy"):
        assert word in text
    assert "var(--collapsed)" in text
    assert "var(--collapsed)" not in _texts(draw_accuracy(read_run(folders["healthy"])))


def test_accuracy_without_labels_shows_agreement(folders: dict[str, Path]) -> None:
    text = _texts(draw_accuracy(read_run(folders["unlabelled"])))
    assert "agreement with the frozen source model" in text
    assert "window accuracy" not in text


def test_fifty_narrow_domains_are_counted_not_named(folders: dict[str, Path]) -> None:
    run = read_run(folders["many_classes"])
    text = _texts(draw_accuracy(run))
    assert "50 domains in turn" in text
    assert "corruption_" not in text
    figure = draw_domains(run)
    assert figure is not None
    assert len(figure.axes[0].get_yticklabels()) == 24


def test_interleaved_domains_are_said_so(make_run: Callable[..., Path], tmp_path: Path) -> None:
    domains = tuple(f"d{i}" for i in range(80))
    assert "domains interleaved" in _texts(draw_accuracy(read_run(make_run(tmp_path / "run", domains=domains))))


def test_thousand_classes_become_twenty_rows(drawn_cases: dict[str, dict[str, Figure]]) -> None:
    axes = drawn_cases["many_classes"]["classes"].axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == 20
    assert names[-1] == "other 981"


def test_long_streams_draw_few_points(drawn_cases: dict[str, dict[str, Figure]]) -> None:
    drawn = drawn_cases["batch_of_one"]
    lines = [line for figure in drawn.values() for axes in figure.axes for line in axes.get_lines()]
    assert max(len(line.get_xdata()) for line in lines) <= 600


def test_thinning_keeps_the_extremes() -> None:
    x = np.arange(20_000.0)
    y = np.sin(x)
    y[12_345], y[777], y[3] = 50.0, -50.0, np.nan
    kept_x, kept_y = thin(x, y)
    assert len(kept_x) <= 600
    assert (np.diff(kept_x) > 0).all()
    assert (kept_y.max(), kept_y.min()) == (50.0, -50.0)


def test_spans_merge_equal_neighbours() -> None:
    edges = np.array([0.0, 2.0, 5.0, 6.0])
    assert spans(edges, ["a", "a", "b"]) == [(0.0, 5.0, "a"), (5.0, 6.0, "b")]


def test_class_shares_add_up_and_skip_the_unknown() -> None:
    values = np.concatenate([np.zeros(32), np.ones(32), np.full(32, np.nan), np.full(32, -1.0)])
    shares = class_shares(values, np.array([0, 1]), 2)
    assert shares.shape == (2, 8)
    np.testing.assert_array_equal(shares[0], [1, 1, 0, 0, np.nan, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(shares[:, :4].sum(axis=0), 1)


def test_plain_text_has_no_mathematics_and_one_line() -> None:
    assert plain("$x\n$") == r"\$x \$"
    assert plain("a" * 40, 5) == "aaaa…"


def test_svg_ids_are_prefixed_and_alt_is_escaped() -> None:
    figure = Figure()
    figure.subplots().plot([0, 1])
    text = str(to_svg(figure, "mine", 'a "b" <c>'))
    assert 'aria-label="a &#34;b&#34; &lt;c&gt;"' in text
    assert 'id="mine-' in text
    assert "http" not in text


def test_report_imports_no_deep_learning() -> None:
    imported = set()
    for file in Path(tta.report.run.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module))
    local = {name for name in imported if name.startswith("tta")}
    assert all(name == "tta.errors" or name.startswith("tta.report.") for name in local)
    forbidden = {"torch", "lightning", "pytorch_lightning", "models", "datamodules"}
    assert not forbidden & {name.split(".")[0] for name in imported}
