"""Cells as the leaderboard takes them."""

from tta.leaderboard import Entry
from tta.matrix.cells import Cell, plan
from tta.matrix.matrix import SOURCE, Matrix
from tta.matrix.results import Results
from tta.matrix.run import matched_views


def entries(matrix: Matrix, results: Results) -> list[Entry]:
    """What ran, and what failed.

    A frozen model that averages views counts for the adapters whose cost it has: its system is named after them, and
    where two adapters cost the same everywhere, they share one.

    Args:
        matrix: The matrix.
        results: Where its cells are.

    Returns:
        An entry for each cell but trained source models: the frozen source, adapters, then views.
    """
    cells = [cell for cell in plan(matrix) if cell.command == "adapt"]
    views = {matched.name: view for view, all_of in matched_views(matrix, cells, results).items() for matched in all_of}
    told = [_entry(cell, cell.system, "source" if cell.system == SOURCE else "adapter", (), results) for cell in cells]
    for adapters, own in _systems(matrix, cells, views).items():
        told += [_entry(view, f"views ({', '.join(adapters)})", "views", adapters, results) for view in own]
    return told


def _systems(matrix: Matrix, cells: list[Cell], views: dict[str, Cell]) -> dict[tuple[str, ...], list[Cell]]:
    """Cells of views by the adapters that they are put beside."""
    together: dict[tuple[str, ...], list[str]] = {}
    matched = {}
    for adapter in matrix.viewed:
        own = [views[cell.name] for cell in cells if cell.system == adapter and cell.name in views]
        if own:
            names = tuple(view.name for view in own)
            together.setdefault(names, []).append(adapter)
            matched[names] = own
    return {tuple(adapters): matched[names] for names, adapters in together.items()}


def _entry(cell: Cell, system: str, family: str, matches: tuple[str, ...], results: Results) -> Entry:
    status = results.status(cell)
    finished = status is not None and status.state == "finished"
    error = "" if finished else "not run" if status is None else status.error or "stopped"
    folder = results.path(cell) if finished else None
    return Entry(system, cell.model, cell.stream, cell.seed, folder, error, family, matches)
