import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from datamodules.covariate import CovariateSchedule, Drift, Gradual, Grid, Recurring, Segment, Sequential
from datamodules.iso_accuracy import AccuracyGrid
from tta.errors import InputError

DOMAINS = ["fog:4", "contrast:2", "sketch"]


def parse(text):
    return {} if text == "clean" else {part.split(":")[0]: float(part.split(":")[1]) for part in text.split("+")}


def smooth(first, second):
    return round(0.9 - 0.08 * first - 0.05 * second - 0.01 * first * second, 6)


def write_summary(path, domains, accuracy=smooth, without=()):
    a, b = domains
    texts = [segment.domain for segment in Grid()(domains) if segment.domain not in without]
    points = {text: parse(text) for text in texts}
    per_domain = {
        text: {"accuracy": accuracy(point.get(a, 0), point.get(b, 0)), "loss": 1.0} for text, point in points.items()
    }
    path.write_text(json.dumps({"accuracy": 0.5, "per_domain": per_domain}))
    return str(path)


@given(st.lists(st.text("ab:+3", min_size=1)))
def test_sequential_shows_each_domain_once(domains):
    assert Sequential()(domains) == [Segment(domain, (domain,)) for domain in domains]


def test_gradual_rises_and_falls():
    segments = Gradual()(["fog:5", "contrast"])
    assert [segment.domain for segment in segments] == ["fog"] * 9 + ["contrast"] * 9
    assert [segment.conditions for segment in segments[:9]] == [(f"fog:{k}",) for k in (1, 2, 3, 4, 5, 4, 3, 2, 1)]


def test_gradual_takes_chains_fractions_and_zero():
    segments = Gradual((0, 2.5))(["fog:5+contrast:1"])
    assert segments == [Segment("fog+contrast", ("clean",)), Segment("fog+contrast", ("fog:2.5+contrast:2.5",))]


@given(st.integers(1, 5))
def test_recurring_repeats_the_whole_sequence(times):
    assert Recurring(times)(DOMAINS) == Sequential()(DOMAINS) * times
    assert Recurring(times, Gradual((1, 3)))(DOMAINS) == Gradual((1, 3))(DOMAINS) * times


def test_drift_at_constant_severity():
    segments = Drift(4)(["fog:4", "contrast:2", "clean"])
    assert segments == [
        Segment(
            "fog>contrast", ("fog:4", "fog:3+contrast:0.5", "fog:2+contrast:1", "fog:1+contrast:1.5", "contrast:2")
        ),
        Segment("contrast>clean", ("contrast:2", "contrast:1.5", "contrast:1", "contrast:0.5", "clean")),
    ]


def test_drift_rounds_to_three_decimals():
    assert Drift(3)(["fog:5", "contrast:5"])[0].conditions[1] == "fog:3.333+contrast:1.667"


def test_a_grid_has_every_combination_once():
    texts = [segment.domain for segment in Grid((0, 1, 2.5))(["fog:4", "contrast", "frost"])]
    expected = ["clean", "contrast:1", "contrast:2.5", "fog:1", "fog:1+contrast:1", "fog:1+contrast:2.5"]
    assert texts[:6] == expected
    assert len(texts) == len(set(texts)) == 9 + 6
    assert all(segment.conditions == (segment.domain,) for segment in Grid()(["fog", "contrast"]))


@given(st.floats(0.66, 0.89), st.integers(1, 30))
def test_a_curve_keeps_the_accuracy(accuracy, steps):
    levels = np.arange(6.0)
    values = smooth_grid(levels)
    curve = AccuracyGrid(levels, levels, values, "a pair").curve(accuracy, steps)
    assert len(curve) == steps + 1
    assert curve[0][1] == curve[-1][0] == 0
    grid = AccuracyGrid(levels, levels, values, "a pair")
    assert [grid.at(*point) for point in curve] == pytest.approx([accuracy] * (steps + 1), abs=1e-6)
    ratios = [second / (first + second) for first, second in curve]
    assert ratios == pytest.approx([step / steps for step in range(steps + 1)])


def smooth_grid(levels):
    return np.array([[smooth(first, second) for second in levels] for first in levels])


def test_interpolation_is_bilinear_and_hits_the_grid():
    grid = AccuracyGrid(np.array([0.0, 2.0]), np.array([0.0, 1.0]), np.array([[0.8, 0.6], [0.4, 0.0]]), "a pair")
    assert grid.at(0, 1) == 0.6
    assert grid.at(1, 0.5) == pytest.approx((0.8 + 0.6 + 0.4 + 0.0) / 4)


def test_drift_at_constant_accuracy(tmp_path):
    baseline = write_summary(tmp_path / "summary.json", ["fog", "contrast"])
    segment = Drift(10, baseline, 0.66)(["fog:5", "contrast:5"])[0]
    assert segment.domain == "fog>contrast"
    assert len(segment.conditions) == 11
    assert segment.conditions[0] == "fog:3"
    assert segment.conditions[-1] == "contrast:4.8"
    points = [parse(condition) for condition in segment.conditions]
    levels = np.arange(6.0)
    grid = AccuracyGrid(levels, levels, smooth_grid(levels), "a pair")
    reached = [grid.at(point.get("fog", 0), point.get("contrast", 0)) for point in points]
    assert reached == pytest.approx([0.66] * 11, abs=2e-4)
    for earlier, later in itertools.pairwise(points):
        assert later.get("fog", 0) < earlier.get("fog", 0)
        assert later.get("contrast", 0) > earlier.get("contrast", 0)


def test_an_accuracy_that_is_not_reached_names_the_range(tmp_path):
    baseline = write_summary(tmp_path / "summary.json", ["fog", "contrast"])
    for accuracy in (0.6, 0.95):
        with pytest.raises(InputError, match=r"accuracy: .* between 'fog' and 'contrast'; choose one in \[0.65, 0.9\]"):
            Drift(10, baseline, accuracy)(["fog", "contrast"])


def test_a_missing_measurement_is_named(tmp_path):
    names = ["fog", "contrast"]
    path = write_summary(tmp_path / "summary.json", names, without=("fog:2+contrast:3",))
    with pytest.raises(InputError, match=r"baseline: 'fog:2\+contrast:3' was not measured"):
        Drift(10, path, 0.66)(names)
    with pytest.raises(InputError, match="nothing was measured between 'contrast' and 'frost'"):
        Drift(10, write_summary(tmp_path / "all.json", names), 0.66)([*names, "frost"])


@pytest.mark.parametrize("text", ["no json", "[]", "{}", '{"per_domain": {"fog:1": {}}}', '{"per_domain": {"fog": 3}}'])
def test_a_file_of_another_form_is_refused(tmp_path, text):
    path = tmp_path / "summary.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"baseline: .* is no JSON file with per_domain accuracies"):
        Drift(10, str(path), 0.5)(["fog", "contrast"])


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"baseline: .* cannot be read .No such file"):
        Drift(10, str(tmp_path / "none.json"), 0.5)(["fog", "contrast"])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Gradual((1, 6)), r"severities: 6 is outside \[0, 5\]"),
        (lambda: Gradual(()), "severities: the list is empty"),
        (lambda: Gradual()(["clean"]), "domains: 'clean' has no corruption"),
        (lambda: Recurring(0), "times: 0"),
        (lambda: Drift(0), "steps: 0"),
        (lambda: Drift(baseline="summary.json"), "baseline: 'summary.json' comes with accuracy None; give both"),
        (lambda: Drift(accuracy=0.5), "baseline: None comes with accuracy 0.5; give both"),
        (lambda: Drift(baseline="summary.json", accuracy=40), r"accuracy: 40 is outside \[0, 1\]"),
        (lambda: Drift()(["fog:5"]), r"domains: \['fog:5'\] is too short"),
        (lambda: Drift()(["fog:5", "contrast"]), "domains: 'contrast' has no severity"),
        (lambda: Drift()(["fog:5", "contrast:7"]), r"domains: 7.0 is outside \[0, 5\]"),
        (lambda: Drift()(["fog:5", "contrast:x"]), "domains: 'contrast:x' has no number after a colon"),
        (lambda: Grid((-1,)), r"levels: -1 is outside \[0, 5\]"),
        (lambda: Grid()(["fog"]), "too short"),
        (lambda: Grid()(["fog", "clean"]), "domains: 'clean' has no corruption"),
        (lambda: Grid()(["fog", "contrast+frost"]), r"domains: 'contrast\+frost' is a chain"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(build, message):
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "params", "schedule"),
    [
        ("Sequential", {}, Sequential()),
        ("Gradual", {"severities": [1, 2.5]}, Gradual((1, 2.5))),
        ("Recurring", {"times": 2}, Recurring(2)),
        (
            "Recurring",
            {"times": 2, "inner": {"class_path": "datamodules.covariate.Gradual", "init_args": {"severities": [3]}}},
            Recurring(2, Gradual((3,))),
        ),
        ("Drift", {"steps": 5, "baseline": "summary.json", "accuracy": 0.4}, Drift(5, "summary.json", 0.4)),
        ("Grid", {}, Grid()),
    ],
)
def test_schedules_can_be_built_from_a_configuration(name, params, schedule):
    parser = ArgumentParser()
    parser.add_argument("--covariate", type=CovariateSchedule)
    config = {"class_path": f"datamodules.covariate.{name}", "init_args": params}
    assert parser.instantiate_classes(parser.parse_object({"covariate": config})).covariate == schedule
