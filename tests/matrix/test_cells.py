"""From a matrix to its cells."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tta.errors import InputError
from tta.matrix import Cell, Matrix, plan
from tta.matrix.cells import plan_views, views_at
from tta.matrix.matrix import Model, Part

SOURCE = Part("source", (), ("--model.adapter", "tta.adapters.Source"))
TENT = Part("tent", (), ("--model.adapter", "tta.adapters.Tent"))
SAR = Part("sar", (), ("--model.adapter", "tta.adapters.SAR"))
MATRIX = Matrix(
    title="small",
    common=Part("common", (), ("--data.batch_size", "8")),
    models=(Model("bn", (), ("--model.backbone", "A")), Model("gn", (), ("--model.backbone", "B"), Part("fit"))),
    adapters=(SOURCE, TENT, SAR),
    streams=(Part("mixed", (), ("--data.order", "mixed")), Part("continual", (), ("--data.order", "continual"))),
    seeds=(0, 7),
    exclude=(),
    views=Part("views", (), ("--model.adapter.seed", "3")),
    viewed=("tent", "sar"),
    metrics={},
)


def adapting(cells: list[Cell]) -> set[tuple[str, str, str, int]]:
    return {(cell.system, cell.model, cell.stream, cell.seed) for cell in cells if cell.command == "adapt"}


def test_every_combination_is_there_once_and_after_what_it_needs() -> None:
    cells = plan(MATRIX)
    assert len({cell.name for cell in cells}) == len(cells) == 1 + 3 * 2 * 2 * 2
    assert len(adapting(cells)) == 24
    seen: set[str] = set()
    for cell in cells:
        assert seen.issuperset(cell.needs), cell
        seen.add(cell.name)


def test_a_cell_says_everything_on_its_command_line() -> None:
    cell = next(cell for cell in plan(MATRIX) if cell.name == "cells/gn/mixed/sar/seed7")
    assert cell.needs == ("sources/gn", "cells/gn/mixed/source/seed7")
    assert cell.words == (
        *("--data.batch_size", "8", "--model.backbone", "B", "--data.order", "mixed"),
        *("--model.adapter", "tta.adapters.SAR", "--model.weights", "{results}/sources/gn/weights.safetensors"),
        *("--model.source_predictions", "{results}/cells/gn/mixed/source/seed7/predictions.csv"),
        *("--seed_everything", "7", "--data.seed", "7"),
    )


def test_excluded_cells_are_left_out_and_so_are_sources_that_nobody_needs() -> None:
    entries = ({"adapter": ("sar",), "model": ("bn",)}, {"model": ("gn",)}, {"seed": ("7",), "stream": ("mixed",)})
    cells = plan(replace(MATRIX, exclude=entries))
    assert adapting(cells) == {
        (system, "bn", stream, seed)
        for system in ("source", "tent")
        for stream, seed in (("mixed", 0), ("continual", 0), ("continual", 7))
    }
    assert all(cell.command == "adapt" for cell in cells), "gn is not trained for nothing"


def test_the_frozen_source_alone_is_a_matrix_too() -> None:
    assert len(adapting(plan(replace(MATRIX, adapters=(SOURCE,), viewed=())))) == 8


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (replace(MATRIX, exclude=({"adapter": ("tent", "sar")},)), "the matrix has no cell: everything is excluded"),
        (replace(MATRIX, exclude=({"adapter": ("tnet",)},)), "no adapter 'tnet': choose from sar, source, tent"),
        (replace(MATRIX, adapters=(SOURCE, TENT, replace(TENT, name="again"))), "tent/seed0 and .*again/seed0 are the"),
        (replace(MATRIX, models=(MATRIX.models[0], replace(MATRIX.models[0], name="b"))), "cells/bn.* and cells/b/"),
    ],
)
def test_cells_that_make_no_matrix(matrix: Matrix, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(matrix)


def test_a_fingerprint_follows_what_a_configuration_file_holds(tmp_path: Path) -> None:
    file = tmp_path / "tent.yaml"
    file.write_text("model: 1")
    cell = Cell("a", "adapt", ("--config", str(file)))
    before = cell.fingerprint
    assert before == Cell("b", "adapt", ("--config", str(file)), ("c",)).fingerprint
    file.write_text("model: 2")
    assert cell.fingerprint != before
    assert Cell("a", "fit", cell.words).fingerprint != cell.fingerprint


@given(st.floats(1.0, 200.0))
def test_views_cost_what_the_adapter_costs(cost: float) -> None:
    assert abs(views_at(cost) / cost - 1.0) < 0.10


def test_frozen_views_of_a_cell() -> None:
    cell = next(cell for cell in plan(MATRIX) if cell.name == "cells/gn/mixed/sar/seed7")
    views = plan_views(MATRIX, cell, 2.6)
    assert views is not None
    assert views.name == "cells/gn/mixed/views2.66/seed7"
    assert views.needs == cell.needs
    options = ("--model.adapter", "tta.adapters.FrozenViews", "--model.adapter.seed", "3")
    words = " ".join(views.words)
    assert " ".join((*options, "--model.adapter.count", "2.66")) in words
    assert plan_views(MATRIX, cell, 1.05) is None, "one view is the source model itself"
