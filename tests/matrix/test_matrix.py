"""Reading a matrix file."""

from pathlib import Path

import pytest
import yaml

from tta.errors import InputError
from tta.matrix import read_matrix
from tta.matrix.matrix import Matrix

SMALL = {
    "models": {"resnet": None},
    "adapters": {"tent": {"options": {"model.adapter": "Tent"}}},
    "streams": {"mixed": {"options": {"data.order": "mixed"}}},
}


def read(folder: Path, text: str) -> Matrix:
    file = folder / "matrix.yaml"
    file.write_text(text)
    return read_matrix(file)


def changed(folder: Path, **changes: object) -> Matrix:
    return read(folder, yaml.safe_dump({**SMALL, **changes}, sort_keys=False))


def test_a_small_matrix_has_defaults(tmp_path: Path) -> None:
    matrix = changed(tmp_path)
    assert matrix.title == "matrix"
    assert matrix.seeds == (0,)
    assert [adapter.name for adapter in matrix.adapters] == ["source", "tent"], "the frozen source model comes along"
    assert matrix.viewed == ("tent",)
    assert matrix.metrics == {}
    assert matrix.models[0].fit is None


def test_a_part_is_a_file_a_list_of_files_or_files_with_options(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("{}")
    file = str(tmp_path / "a.yaml")
    told = {
        "one": file,
        "two": [file, file],
        "three": {"config": file, "options": {"data.severity": 5, "data.domains": ["fog", "frost"], "data.x": None}},
    }
    one, two, three = changed(tmp_path, streams=told).streams
    assert one.config == (file,)
    assert two.config == (file, file)
    assert three.options == ("--data.severity", "5", "--data.domains", '["fog", "frost"]', "--data.x", "null")


def test_own_settings_of_the_frozen_source_and_of_views_are_kept(tmp_path: Path) -> None:
    adapters = {"tent": None, "sar": None, "source": {"options": {"model.window": 100}}}
    views = {"adapters": "sar", "options": {"model.adapter.seed": 3}}
    matrix = changed(tmp_path, adapters=adapters, frozen_views=views, metrics={"ece": "min", "nll": "min"})
    assert [adapter.name for adapter in matrix.adapters] == ["tent", "sar", "source"]
    assert matrix.adapters[2].options == ("--model.adapter", "tta.adapters.Source", "--model.window", "100")
    assert matrix.viewed == ("sar",)
    assert matrix.views.options == ("--model.adapter.seed", "3")
    assert matrix.metrics == {"ece": False, "nll": False}
    assert changed(tmp_path, frozen_views=False).viewed == ()


def test_values_may_refer_to_each_other(tmp_path: Path) -> None:
    matrix = read(
        tmp_path,
        """
models: {resnet: }
streams: {mixed: {options: {data.order: mixed}}}
seeds: [4, 5]
adapters:
  tent: {options: {data.seeds: "${seeds}"}}
""",
    )
    assert matrix.adapters[1].options == ("--data.seeds", "[4, 5]")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {}}, "matrix.yaml: unknown key 'model': choose from title, config"),
        ({"models": {}}, "models is {}: give at least one"),
        ({"streams": ["a"]}, r"streams is \['a'\]: give at least one, as a name"),
        ({"streams": {"a/b": None}}, "streams: 'a/b' cannot be a folder's name"),
        ({"streams": {"Mixed": None, "mixed": None}}, "Mixed and mixed differ in capitals alone"),
        ({"adapters": {"tent": {"configs": []}}}, "adapters.tent: unknown key 'configs': choose from config, options"),
        ({"adapters": {"tent": 3}}, "adapters.tent: 3 is no part"),
        ({"adapters": {"tent": "no.yaml"}}, "adapters.tent: no configuration file no.yaml in "),
        ({"adapters": {"tent": {"options": ["lr"]}}}, r"adapters.tent: options are \['lr'\]: give names with values"),
        ({"models": {"resnet": {"fit": 2}}}, "models.resnet.fit: 2 is no part"),
        ({"seeds": []}, r"seeds are \[\]: give at least one whole number"),
        ({"seeds": [0, -1]}, r"seeds are \[0, -1\]"),
        ({"seeds": [True]}, r"seeds are \[True\]"),
        ({"seeds": [1, 2, 1]}, "seed 1 stands there twice"),
        ({"exclude": ["tent"]}, "exclude: 'tent': give axes with values"),
        ({"exclude": {"method": "tent"}}, "exclude: unknown key 'method': choose from model, adapter, stream, seed"),
        ({"frozen_views": "sar"}, "frozen_views: no adapter 'sar': choose from tent, or true or false"),
        ({"frozen_views": {"count": 3}}, "frozen_views: unknown key 'count'"),
        ({"metrics": {"ece": ["min"]}}, "metrics are .*: give names of summary.json with max or min"),
        ({"metrics": {"accuracy": "max"}}, "metrics: 'accuracy' is a column of every leaderboard"),
        ({"metrics": {"cost.seconds": "min"}}, "metrics: 'cost.seconds' depends on the clock: timing.csv has it"),
        ({"metrics": {"ece": "low"}}, "metrics are {'ece': 'low'}: give names of summary.json with max or min"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        changed(tmp_path, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "holds a list: a matrix is a mapping"),
        ("models: {a: 1\n", "cannot be read"),
        ("models: {a: }\nmodels: {b: }\n", "duplicate key models"),
        ("title: ${nowhere}\n", "cannot be read"),
    ],
)
def test_a_broken_file_is_said_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no matrix file at .*nowhere\.yaml"):
        read_matrix(tmp_path / "nowhere.yaml")
