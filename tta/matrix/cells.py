"""A matrix as a list of runs."""

import hashlib
import itertools
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from tta.errors import InputError
from tta.leaderboard import VIEW_STEP
from tta.matrix.matrix import SOURCE, Matrix, Model, Part, has_own_network

RESULTS = "{results}"
"""Stands for the folder of results in a cell's words, so that they are the same wherever that is."""


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        name: Its folder within the results.
        command: ``fit`` or ``adapt``.
        words: What the command is called with, without the run folder.
        needs: Cells that have to be finished first.
        system: Adapter, ``source``, or frozen views by their count; empty for a ``fit``.
        model: Model.
        stream: Stream; empty for a ``fit``.
        seed: Seed.
    """

    name: str
    command: str
    words: tuple[str, ...]
    needs: tuple["Cell", ...] = ()
    system: str = ""
    model: str = ""
    stream: str = ""
    seed: int = 0

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the command, of what files that it names hold, and of what it needs."""
        digest = hashlib.sha256(self.command.encode())
        for word in self.words:
            digest.update(b"\0" + (_content(word) or word.encode()))
        for cell in self.needs:
            digest.update(b"\0" + cell.fingerprint.encode())
        return digest.hexdigest()


def plan(matrix: Matrix) -> list[Cell]:
    """All runs that are known before any has run: source models to train, frozen source models, adapters.

    Args:
        matrix: The matrix.

    Returns:
        Cells in the order in which they are best run, each after those that it needs.

    Raises:
        InputError: If no cell is left, two are the same, or an exclusion excludes nothing.
    """
    _check_exclusions(matrix)
    groups = list(itertools.product(matrix.models, matrix.streams, matrix.seeds))
    adapters = [adapter for adapter in matrix.adapters if adapter.name != SOURCE]
    wanted = [
        (model, stream, seed, adapter)
        for adapter in adapters
        for model, stream, seed in groups
        if not _excluded(matrix, model.name, stream.name, adapter.name, seed)
    ]
    needed = {cell[:3] for cell in wanted}
    sources = [
        (*group, matrix.source)
        for group in groups
        if group in needed or (not adapters and not _excluded(matrix, group[0].name, group[1].name, SOURCE, group[2]))
    ]
    if not sources:
        raise InputError("the matrix has no cell: everything is excluded")
    trained = [model for model in matrix.models if any(cell[0] is model for cell in sources)]
    cells = [_fit(model, model.fit) for model in trained if model.fit is not None]
    cells += [_adapt(matrix, model, stream, adapter, seed) for model, stream, seed, adapter in (*sources, *wanted)]
    _check_distinct(cells)
    return cells


def plan_views(matrix: Matrix, cell: Cell, cost: float) -> Cell | None:
    """The frozen model that averages augmented views at the cost of a finished cell.

    Args:
        matrix: The matrix.
        cell: A finished cell of an adapter.
        cost: What it cost, in forward-equivalents per sample.

    Returns:
        Its cell; ``None`` where the cost is that of a single view.
    """
    count = views_at(cost)
    if count < VIEW_STEP:
        return None
    model = next(model for model in matrix.models if model.name == cell.model)
    stream = next(stream for stream in matrix.streams if stream.name == cell.stream)
    options = (
        "--model.adapter",
        "tta.adapters.FrozenViews",
        *matrix.views.options,
        "--model.adapter.count",
        f"{count}",
    )
    return _adapt(matrix, model, stream, Part(f"views{count}", matrix.views.config, options), cell.seed)


def views_at(cost: float) -> float:
    """How many views cost about as much, on a grid of which neighbours differ by 15 %, at least one."""
    steps = 0
    while VIEW_STEP ** (steps + 0.5) < cost:
        steps += 1
    return round(VIEW_STEP**steps, 2)


def _adapt(matrix: Matrix, model: Model, stream: Part, adapter: Part, seed: int) -> Cell:
    words = [word for part in (matrix.common, model, stream, adapter) for word in part.config_words]
    words += [*matrix.common.options, *model.options]
    needs = []
    if model.fit is not None:
        needs.append(_fit(model, model.fit))
        words += ["--model.weights", f"{RESULTS}/{needs[-1].name}/weights.safetensors"]
    words += [*stream.options, *adapter.options]
    if adapter.name != SOURCE and not has_own_network(adapter):
        needs.append(_adapt(matrix, model, stream, matrix.source, seed))
        words += ["--model.source_predictions", f"{RESULTS}/{needs[-1].name}/predictions.csv"]
    words += ["--seed_everything", str(seed), "--data.seed", str(seed)]
    name = f"cells/{model.name}/{stream.name}/{adapter.name}/seed{seed}"
    return Cell(name, "adapt", tuple(words), tuple(needs), adapter.name, model.name, stream.name, seed)


def _fit(model: Model, fit: Part) -> Cell:
    return Cell(f"sources/{model.name}", "fit", (*fit.config_words, *fit.options), model=model.name)


@cache
def _digest(path: Path, modified: int) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.digest()


def _content(word: str) -> bytes | None:
    """A digest of what a file holds, ``None`` for words that name none."""
    try:
        path = Path(word)
        return _digest(path.resolve(), path.stat().st_mtime_ns) if path.is_file() else None
    except (OSError, ValueError):  # too long for a path, such as a class with its arguments
        return None


def _excluded(matrix: Matrix, model: str, stream: str, adapter: str, seed: int) -> bool:
    place = {"model": model, "stream": stream, "adapter": adapter, "seed": str(seed)}
    return any(all(place[axis] in values for axis, values in entry.items()) for entry in matrix.exclude)


def _check_exclusions(matrix: Matrix) -> None:
    known = {
        "model": {model.name for model in matrix.models},
        "stream": {stream.name for stream in matrix.streams},
        "adapter": {adapter.name for adapter in matrix.adapters},
        "seed": {str(seed) for seed in matrix.seeds},
    }
    for entry in matrix.exclude:
        for axis, values in entry.items():
            for value in values:
                if value not in known[axis]:
                    raise InputError(
                        f"exclude: the matrix has no {axis} {value!r}: choose from {', '.join(sorted(known[axis]))}"
                    )


def _check_distinct(cells: list[Cell]) -> None:
    seen: dict[tuple[str, tuple[str, ...]], Cell] = {}
    for cell in cells:
        own = tuple(word for word in cell.words if not word.startswith(f"{RESULTS}/cells"))
        first = seen.setdefault((cell.command, own), cell)
        if first is not cell:
            raise InputError(f"{first.name} and {cell.name} are the same run: take one of them out of the matrix")
