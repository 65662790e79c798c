"""The picture and the summary of a stream, from arrays alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from tta.report.stream import Stream, repeats, strip_positions, summary_lines
from tta.report.stream_figure import draw_stream

Segments = Sequence[tuple[str, Sequence[str]]]

CONTINUAL = [(f"{name}:5", [f"{name}:5"]) for name in ("gaussian_noise", "fog", "contrast")]
GRADUAL = [("fog", ["fog:1", "fog:3", "fog:5"]), ("contrast", ["contrast:1", "contrast:3", "contrast:5"])]
DRIFT = [("fog>contrast", ["fog:4", "fog:2+contrast:2", "contrast:4"])]


def _severities(condition: str) -> dict[str, float]:
    parts = [part.split(":") for part in condition.split("+") if ":" in part]
    return {name: float(severity) for name, severity in parts}


def make(
    segments: Segments = CONTINUAL, each: int = 300, classes: int = 5, mixed: bool = False, **changes: Any
) -> Stream:
    """A stream that shows `each` images per segment, labels `0, 1, ...` in turn."""
    conditions = list(dict.fromkeys(name for _, names in segments for name in names))
    domains = list(dict.fromkeys(name for name, _ in segments))
    spread = [np.arange(each) * len(names) // each for _, names in segments]
    numbers = [[conditions.index(name) for name in names] for _, names in segments]
    columns = {
        "index": np.tile(np.arange(each), len(segments)),
        "label": np.tile(np.arange(each) % classes, len(segments)),
        "condition": np.concatenate([np.array(own)[at] for own, at in zip(numbers, spread, strict=True)]),
        "domain": np.repeat([domains.index(name) for name, _ in segments], each),
    }
    samples = each * len(segments)
    if mixed:
        order = np.random.default_rng(0).permutation(samples)
        columns = {name: values[order] for name, values in columns.items()}
    shown = strip_positions(samples)
    values: dict[str, Any] = {
        "name": "Photos",
        "order": "mixed" if mixed else "continual",
        "boundaries": "none" if mixed else "known",
        "covariate": "Sequential()",
        "labels": "Shuffled()",
        "seed": 3,
        "batch_size": 50,
        "class_names": tuple(f"class {number}" for number in range(classes)),
        "starts": np.append(np.arange(0, samples, 50), samples),
        "conditions": tuple(conditions),
        "domains": tuple(domains),
        "severities": tuple(map(_severities, conditions)),
        "shown": shown,
        "images": np.full((len(shown), 8, 8, 3), 0.5, np.float32),
    }
    return Stream(**{**values, **columns, **changes})


def panel(figure: Figure, name: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_label() == name)


def names(figure: Figure) -> list[str]:
    panels = ("domains", "severity", "classes", "images")
    return [str(axes.get_label()) for axes in figure.axes if axes.get_label() in panels]


def steps(axes: Axes) -> list[StepPatch]:
    return [patch for patch in axes.patches if isinstance(patch, StepPatch)]


def heights(axes: Axes) -> np.ndarray:
    return np.array([patch.get_data().values - patch.get_data().baseline for patch in steps(axes)])


def captions(figure: Figure) -> list[str]:
    return [text.get_text() for inset in panel(figure, "images").child_axes for text in inset.texts]


def test_class_areas_are_the_shares_of_the_plan() -> None:
    stream = make()
    axes = panel(draw_stream(stream), "classes")
    edges = steps(axes)[0].get_data().edges
    drawn = heights(axes)
    np.testing.assert_allclose(drawn.sum(axis=0), 1)
    for number in range(5):
        for column, (start, end) in enumerate(itertools.pairwise(edges)):
            assert drawn[number, column] == pytest.approx((stream.label[start:end] == number).mean())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [f"class {n}" for n in (4, 3, 2, 1, 0)]


def test_unknown_labels_are_left_out_of_the_shares() -> None:
    label = np.where(np.arange(900) % 2, -1, 2)
    axes = panel(draw_stream(make(label=label)), "classes")
    np.testing.assert_allclose(heights(axes)[2], 1)
    assert names(draw_stream(make(label=np.full(900, -1)))) == ["domains", "images"]


def test_domains_are_named_bands_at_their_places() -> None:
    axes = panel(draw_stream(make()), "domains")
    ends = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
    assert ends == [(0, 300), (300, 600), (600, 900)]
    assert [text.get_text() for text in axes.texts] == ["gaussian_noise:5", "fog:5", "contrast:5"]


def test_names_that_do_not_fit_are_slanted_and_then_go_to_a_legend() -> None:
    many = [(f"corruption_number_{number}", [f"c{number}:5"]) for number in range(15)]
    axes = panel(draw_stream(make(many, each=20)), "domains")
    assert len(axes.texts) == 15
    assert {text.get_rotation() for text in axes.texts} == {35.0}
    again = panel(draw_stream(make(many * 5, each=20)), "domains")
    assert not again.texts
    assert len(again.get_legend().get_texts()) == 15


def test_mixed_domains_are_shares() -> None:
    axes = panel(draw_stream(make(mixed=True)), "domains")
    drawn = heights(axes)
    assert len(drawn) == 3
    np.testing.assert_allclose(drawn.sum(axis=0), 1)
    assert (drawn < 1).all()


def test_severity_steps_where_the_conditions_do() -> None:
    figure = draw_stream(make(GRADUAL))
    assert names(figure) == ["domains", "severity", "classes", "images"]
    fog, contrast = (patch.get_data() for patch in steps(panel(figure, "severity")))
    np.testing.assert_array_equal(fog.edges, [0, 100, 200, 300, 400, 500, 600])
    np.testing.assert_array_equal(fog.values, [1, 3, 5, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(contrast.values, [np.nan, np.nan, np.nan, 1, 3, 5])


def test_a_drift_has_a_line_per_corruption_and_a_legend() -> None:
    axes = panel(draw_stream(make(DRIFT)), "severity")
    fog, contrast = (patch.get_data().values for patch in steps(axes))
    np.testing.assert_array_equal(fog, [4, 2, np.nan])
    np.testing.assert_array_equal(contrast, [np.nan, 2, 4])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["fog", "contrast"]


def test_corruptions_have_one_colour_in_both_panels() -> None:
    figure = draw_stream(make(GRADUAL))
    bands = [patch.get_facecolor() for patch in panel(figure, "domains").patches]
    lines = [patch.get_edgecolor() for patch in steps(panel(figure, "severity"))]
    assert bands == lines
    assert panel(figure, "severity").get_legend() is None


def test_severity_of_a_mixed_stream_is_a_mean() -> None:
    segments = [(f"fog:{severity}", [f"fog:{severity}"]) for severity in (1, 5)]
    axes = panel(draw_stream(make(segments, each=1000, mixed=True)), "severity")
    assert axes.get_ylabel() == "mean severity"
    assert np.mean(steps(axes)[0].get_data().values) == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(
    ("segments", "fact"),
    [(CONTINUAL, "severity 5 throughout"), ([("sketch", ["sketch"])], "no corruption, images as they are")],
)
def test_a_severity_that_says_nothing_is_a_note(segments: Segments, fact: str) -> None:
    figure = draw_stream(make(segments))
    assert "severity" not in names(figure)
    assert fact in str(figure.get_supxlabel())


def test_images_stand_under_their_places_with_class_and_condition() -> None:
    figure = draw_stream(make(GRADUAL))
    axes = panel(figure, "images")
    figure.draw_without_rendering()
    scale = axes.get_window_extent()
    for inset, position in zip(axes.child_axes, strip_positions(600), strict=True):
        middle = (inset.get_window_extent().x0 + inset.get_window_extent().x1) / 2
        assert (middle - scale.x0) / scale.width == pytest.approx((position + 0.5) / 600, abs=0.01)
    assert captions(figure)[0] == "class 2\nfog:1"
    assert captions(figure)[-1] == "class 2\ncontrast:5"


@pytest.mark.filterwarnings("ignore:Glyph")
def test_grey_images_and_names_with_odd_characters() -> None:
    stream = make(images=np.full((11, 8, 8, 1), 0.25, np.float32), class_names=("$a_b$", "\n", "x" * 80, "", "猫"))
    figure = draw_stream(stream)
    figure.draw_without_rendering()
    image = panel(figure, "images").child_axes[0].images[0].get_array()
    assert image.shape == (8, 8, 3)


def test_many_classes_are_a_heat_map_of_at_most_a_hundred_rows() -> None:
    axes = panel(draw_stream(make(each=3000, classes=1000)), "classes")
    (image,) = axes.images
    assert image.get_array().shape == (100, 100)
    np.testing.assert_allclose(image.get_array().sum(axis=0), 1)
    assert axes.get_legend() is None


def test_title_and_facts_tell_the_schedules() -> None:
    figure = draw_stream(make(covariate="Recurring(times=3)", labels="Sorted()"))
    title = str(figure.get_suptitle()).replace("\n", " ")
    assert all(word in title for word in ("Photos", "Recurring(times=3)", "Sorted()", "continual", "known"))
    assert "900 samples in 18 batches" in str(figure.get_supxlabel())


@pytest.mark.parametrize("each", [1, 2, 7, 40])
def test_the_shortest_streams_are_drawn(each: int) -> None:
    figure = draw_stream(make(CONTINUAL[:1], each=each))
    figure.draw_without_rendering()
    assert len(captions(figure)) == min(each, 11)


def test_a_million_samples_are_binned() -> None:
    stream = make(each=340_000, classes=1000, mixed=True)
    started = time.process_time()
    figure = draw_stream(stream)
    figure.draw_without_rendering()
    summary_lines(stream)
    assert time.process_time() - started < 15
    points = sum(len(patch.get_data().values) for axes in figure.axes for patch in steps(axes))
    assert points < 5000


def test_summary_tells_what_the_stream_is() -> None:
    text = "\n".join(summary_lines(make(GRADUAL)))
    for fact in (
        "Photos: 600 samples in 12 batches of 50 (batch_size 50)",
        "Order: continual, boundaries known, seed 3",
        "Domains: 2 (fog, contrast)",
        "Conditions: 6 (fog:1, fog:3, fog:5, contrast:1, contrast:3, contrast:5)",
        "Classes: 5, 120 to 120 samples each (ratio 1), 5.0 distinct ones per batch on average",
        "no image comes twice",
    ):
        assert fact in text


def test_summary_of_a_skewed_stream() -> None:
    label = np.repeat([0, 0, 0, 1], 225)
    stream = make(label=label, index=np.zeros(900, np.int64))
    text = "\n".join(summary_lines(stream))
    assert "225 to 675 samples each (ratio 3; 3 never shown)" in text
    assert "897 samples (99.7%) show an image again under the same condition" in text
    assert repeats(stream) == 897
    assert "no label is known" in "\n".join(summary_lines(make(label=np.full(900, -1))))
