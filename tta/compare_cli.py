"""``tta compare``: many runs from one file."""

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tta.errors import CommandParser, InputError
from tta.leaderboard import build_leaderboard, leaderboard_table, write_pages
from tta.matrix import Cell, Engine, Matrix, Outcome, Results, Work, plan, read_matrix, run_cell, run_matrix
from tta.matrix.entries import entries
from tta.matrix.local_engine import LocalEngine, default_jobs, threads_for
from tta.matrix.progress import MatrixProgress

DESCRIPTION = """\
Run adapters x models x streams x seeds from one file, and rank them on one page.

Each cell is a run of 'tta adapt' in a folder of its own. The same command goes on with a matrix that was stopped:
finished cells are not run again, and one that was killed goes on where its last checkpoint left it. A cell that fails
is told with its reason and stops no other. The frozen source model of each stream runs once and serves all adapters;
each adapter is put beside a frozen model that averages as many augmented views as cost the same."""

EPILOG = """\
  tta compare configs/compare/digits.yaml --dry-run
  tta compare configs/compare/digits.yaml --jobs 2
  tta compare matrix.yaml --engine ray --address auto --cpus-per-cell 4 --gpus-per-cell 1
  tta compare matrix.yaml --write-sweep sweep.yaml && wandb sweep sweep.yaml"""


def compare(arguments: Sequence[str]) -> None:
    """Run a matrix, and draw the page that compares its runs.

    Args:
        arguments: The matrix file and options.

    Raises:
        InputError: If an argument or the matrix is wrong, or if cells failed; then all others have run and the page
            is there.
    """
    options = _parser().parse_args(arguments)
    matrix = read_matrix(options.matrix)
    cells = plan(matrix)
    results = Results(options.output or Path("runs") / "compare" / options.matrix.stem)
    console = Console(highlight=False)
    if options.dry_run:
        results.check(cells)
        _show(matrix, cells, results, console)
    elif options.write_sweep is not None:
        from tta.matrix.sweep import write_sweep

        write_sweep(options.write_sweep, options.matrix, results.folder, cells)
        console.print(f"Next: wandb sweep {options.write_sweep}", soft_wrap=True)
    elif options.cell is not None:
        results.check(cells)
        _run_one(options.cell, cells, results)
    else:
        outcomes = _run(options, matrix, results, console)
        _finish(options, matrix, results, outcomes, console)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="tta compare",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("matrix", type=Path, metavar="MATRIX", help="YAML file with models, adapters, streams, seeds")
    parser.add_argument("--output", type=Path, help="folder of results (default: runs/compare/ and the file's name)")
    parser.add_argument("--dry-run", action="store_true", help="print the cells and what is left of them, run nothing")
    parser.add_argument("--cell", metavar="NAME", help="run this cell alone, with what it needs")
    parser.add_argument("--write-sweep", type=Path, metavar="FILE", help="write the cells as a sweep of wandb")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="what runs cells (default: local)")
    parser.add_argument("--jobs", type=int, help="cells at a time (default: one a GPU or processor; ray: all that fit)")
    parser.add_argument("--address", help="ray: the cluster, such as auto or HOST:6379 (default: a new one here)")
    parser.add_argument("--cpus-per-cell", type=int, default=1, help="ray: processors of a cell (default: 1)")
    parser.add_argument("--gpus-per-cell", type=float, default=0, help="ray: GPUs of a cell, or a part (default: 0)")
    parser.add_argument("--retries", type=int, default=3, help="ray: restarts of a cell on a lost node (default: 3)")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples of the page (default: 1000)")
    parser.add_argument("--wandb", metavar="PROJECT", help="log the table and the page to this project of wandb")
    return parser


def _show(matrix: Matrix, cells: list[Cell], results: Results, console: Console) -> None:
    for cell in cells:
        status = results.status(cell)
        state = "waiting" if status is None else status.state
        console.print(f"{state:9}{cell.name}: tta {cell.command} {shlex.join(results.words(cell))}", soft_wrap=True)
    left = sum(not results.finished(cell) for cell in cells)
    console.print(f"{len(cells)} cells, {left} to run, in {results.folder}", soft_wrap=True)
    if matrix.viewed:
        console.print(f"Then frozen models that average augmented views, at the costs of {', '.join(matrix.viewed)}")


def _run_one(name: str, cells: list[Cell], results: Results) -> None:
    known = {cell.name: cell for cell in cells}
    if name not in known:
        raise InputError(f"--cell: the matrix has no cell {name!r}: --dry-run lists them")
    for wanted in (*known[name].needs, known[name]):
        outcome = run_cell(Work(wanted, str(results.folder.resolve()), os.getcwd(), threads_for(1)))
        if outcome.error:
            raise InputError(f"{outcome.name} failed: {outcome.error}")


def _run(options: argparse.Namespace, matrix: Matrix, results: Results, console: Console) -> list[Outcome]:
    engine, threads = _engine(options)
    try:
        with MatrixProgress(console) as progress:
            return run_matrix(matrix, results, engine, progress, threads)
    except KeyboardInterrupt:
        console.print(f"Stopped. The same command goes on in {results.folder}", soft_wrap=True)
        raise SystemExit(130) from None
    finally:
        engine.close()


def _engine(options: argparse.Namespace) -> tuple[Engine, int]:
    """The engine, and the threads that a cell may use."""
    if options.engine == "local":
        jobs = default_jobs() if options.jobs is None else options.jobs
        engine = LocalEngine(jobs)
        return engine, threads_for(jobs)
    from tta.matrix.ray_engine import RayEngine

    cpus, gpus = options.cpus_per_cell, options.gpus_per_cell
    return RayEngine(options.address, cpus, gpus, options.retries, options.jobs), cpus


def _finish(
    options: argparse.Namespace, matrix: Matrix, results: Results, outcomes: list[Outcome], console: Console
) -> None:
    board = build_leaderboard(entries(matrix, results), dict(matrix.metrics), options.resamples)
    page = write_pages(board, results.folder, matrix.title)
    console.print(leaderboard_table(board))
    if options.wandb is not None:
        from tta.matrix.tracking import log_leaderboard

        where = log_leaderboard(options.wandb, matrix.title, board, page)
        console.print(f"wandb: {where}", soft_wrap=True)
    console.print(f"Page: {page}", soft_wrap=True)
    if failed := [outcome for outcome in outcomes if outcome.error]:
        raise InputError(
            f"{len(failed)} of {len(outcomes)} cells failed, such as {failed[0].name}: {failed[0].error}; the same "
            "command runs them again, exclude leaves them out"
        )
