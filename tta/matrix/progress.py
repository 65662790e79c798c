"""How far a matrix is."""

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tta.matrix.cells import Cell
from tta.matrix.work import Outcome


class MatrixProgress:
    """A bar with the time that is left, and a line for each cell that ends where there is no terminal to draw on.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("cells", total=0)
        self._running: list[str] = []
        self._cells = 0
        self._ended = 0

    def __enter__(self) -> "MatrixProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def planned(self, cells: int, finished: int) -> None:
        """Count cells in."""
        if cells and finished:
            self._console.print(f"{finished} of {cells} cells had finished before", highlight=False)
        # Those of earlier runs are no part of the bar: they would make the rest look quicker than it is.
        self._cells += cells - finished
        self._bar.update(self._task, total=self._cells)

    def started(self, cell: Cell) -> None:
        """Show what runs."""
        self._running.append(cell.name)
        self._show()

    def ended(self, outcome: Outcome) -> None:
        """Count a cell, and say why it failed."""
        if outcome.name in self._running:
            self._running.remove(outcome.name)
        self._ended += 1
        self._bar.update(self._task, completed=self._ended)
        self._show()
        name = escape(outcome.name)
        if outcome.error:
            self._console.print(f"[red]failed[/red] {name}: {escape(outcome.error)}", highlight=False, soft_wrap=True)
        elif not self._console.is_terminal:
            self._console.print(f"{self._ended}/{self._cells} {name}", highlight=False, soft_wrap=True)

    def _show(self) -> None:
        names = [name.removeprefix("cells/") for name in self._running]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        self._bar.update(self._task, description=escape(f"{names[0]}{more}") if names else "cells")
