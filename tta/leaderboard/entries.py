"""What a leaderboard is made of: one entry per cell of a matrix of systems, models, streams and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tta.errors import InputError

FAMILIES = ("adapter", "source", "views")
VIEW_STEP = 1.15
"""Ratio of neighbouring costs at which frozen models that average views are run: within 7.3 % of any cost."""


@dataclass(frozen=True)
class Entry:
    """One cell of a matrix.

    Attributes:
        system: What ran: an adapter, the frozen source model, or a frozen model that averages views.
        model: Name of the model.
        stream: Name of the stream.
        seed: Seed of the run.
        folder: The finished run folder; `None` where the cell failed.
        error: Why it failed, in one line; empty where it finished.
        family: `adapter`, `source` (the frozen source model) or `views` (a frozen model that averages augmented views).
        matches: Of `views`, the adapters whose cost it has.
    """

    system: str
    model: str
    stream: str
    seed: int
    folder: Path | None
    error: str = ""
    family: str = "adapter"
    matches: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """Model and stream as one text."""
        return f"{self.model} / {self.stream}"

    @property
    def block(self) -> tuple[str, str, int]:
        """Model, stream and seed: what all systems of a block share."""
        return self.model, self.stream, self.seed


def check_entries(entries: Sequence[Entry]) -> None:
    """Check that entries form a matrix.

    Args:
        entries: The cells, in any order.

    Raises:
        InputError: There is none, two are the same cell, or a family is unknown or differs within a system.
    """
    if not entries:
        raise InputError("no cell given: a leaderboard needs at least one run")
    seen: set[tuple[str, str, str, int]] = set()
    families: dict[str, str] = {}
    for entry in entries:
        if entry.family not in FAMILIES:
            raise InputError(f"'{entry.system}' has the family '{entry.family}': one of {', '.join(FAMILIES)}")
        if families.setdefault(entry.system, entry.family) != entry.family:
            raise InputError(f"'{entry.system}' is {families[entry.system]} and {entry.family}: give it one family")
        cell = (entry.system, *entry.block)
        if cell in seen:
            raise InputError(f"'{entry.system}' on {entry.task}, seed {entry.seed} is given twice")
        seen.add(cell)
    if list(families.values()).count("source") > 1:
        sources = [system for system, family in families.items() if family == "source"]
        raise InputError(f"{', '.join(sources)} are all given as the frozen source model: one system is")
