"""From a matrix to its cells."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

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
        assert seen.issuperset(need.name for need in cell.needs), cell
        seen.add(cell.name)


def test_a_cell_says_everything_on_its_command_line() -> None:
    cell = next(cell for cell in plan(MATRIX) if cell.name == "cells/gn/mixed/sar/seed7")
    assert [need.name for need in cell.needs] == ["sources/gn", "cells/gn/mixed/source/seed7"]
    assert cell.words == (
        *("--data.batch_size", "8", "--model.backbone", "B"),
        *("--model.weights", "{results}/sources/gn/weights.safetensors", "--data.order", "mixed"),
        *("--model.adapter", "tta.adapters.SAR"),
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


def test_a_fingerprint_follows_what_the_files_of_a_command_hold(tmp_path: Path) -> None:
    file = tmp_path / "tent.yaml"

    def cell(**changes: Any) -> Cell:
        return replace(Cell("a", "adapt", ("--model.weights", str(file))), **changes)

    file.write_text("1")
    before = cell().fingerprint
    assert before == cell(name="b").fingerprint
    assert before != cell(command="fit").fingerprint
    assert before != cell(needs=(Cell("c", "fit", ()),)).fingerprint
    file.write_text("22")
    os.utime(file, ns=(0, 0))
    assert cell().fingerprint != before


def test_training_a_source_otherwise_concerns_all_that_need_it() -> None:
    before = {cell.name: cell.fingerprint for cell in plan(MATRIX)}
    trained = replace(MATRIX.models[1], fit=Part("fit", (), ("--trainer.max_epochs", "3")))
    after = {cell.name: cell.fingerprint for cell in plan(replace(MATRIX, models=(MATRIX.models[0], trained)))}
    assert {name for name in before if after[name] != before[name]} == {name for name in before if "/gn" in name}


def test_an_adapter_with_a_network_of_its_own_is_compared_with_its_own_source() -> None:
    own = replace(SAR, options=(*SAR.options, "--model.backbone", "Experts", "--model.weights", "experts.pt"))
    cells = {cell.name: cell for cell in plan(replace(MATRIX, adapters=(SOURCE, TENT, own)))}
    words = cells["cells/gn/mixed/sar/seed0"].words
    assert "--model.source_predictions" not in words
    weights = [words[place + 1] for place, word in enumerate(words) if word == "--model.weights"]
    assert weights[-1] == "experts.pt", "later ones win"
    assert "--model.source_predictions" in cells["cells/gn/mixed/tent/seed0"].words


@given(st.floats(1.0, 200.0))
def test_views_cost_what_the_adapter_costs(cost: float) -> None:
    assert abs(views_at(cost) / cost - 1.0) < 0.075


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
