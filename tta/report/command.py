"""``tta report``: pages about runs that are there already."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tta.errors import CommandParser
from tta.report.compare import comparison_table, write_comparison
from tta.report.page import write_report
from tta.report.run import read_run


def report(arguments: Sequence[str]) -> None:
    """Draw the page of one run, or a page that compares several, and say where it is.

    Args:
        arguments: Run folders, and ``--output`` for a comparison.

    Raises:
        InputError: If a folder is not that of a finished run.
    """
    parser = CommandParser(
        prog="tta report", description="Draw the page of a run again, or one page that compares several."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder that 'tta adapt' wrote")
    parser.add_argument("--output", type=Path, help="page that compares several runs (default: comparison.html here)")
    options = parser.parse_args(arguments)
    console = Console()
    pages = [write_report(run) for run in options.runs]
    if len(pages) == 1 and options.output is None:
        console.print(f"Report: {pages[0]}", soft_wrap=True)
        return
    page = write_comparison(options.runs, options.output or Path("comparison.html"))
    console.print(comparison_table([read_run(run) for run in options.runs]))
    console.print(f"Comparison: {page}", soft_wrap=True)
