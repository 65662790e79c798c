"""What runs cells."""

from collections.abc import Sequence
from typing import Protocol

from tta.matrix.work import Outcome, Work


class Engine(Protocol):
    """Runs cells side by side.

    Attributes:
        slots: Cells that may run or wait at the engine at a time.
    """

    slots: int

    def start(self, work: Work) -> None:
        """Start a cell; returns at once."""

    def ended(self) -> Sequence[Outcome]:
        """Wait until at least one of the started cells has ended; those that have, each told once."""

    def close(self) -> None:
        """Stop whatever still runs."""
