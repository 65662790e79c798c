"""The frozen models that a cell is held against, and how sure a difference from them is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tta.leaderboard.cells import Cell
from tta.leaderboard.entries import VIEW_STEP
from tta.ranking import Block, Experiment, mean_score
from tta.ranking.bootstrap import resampled
from tta.ranking.paired_tests import CONFIDENCE
from tta.ranking.totals import Tally
from tta.report.run import FloatArray

SINGLE_VIEW = VIEW_STEP**0.5
"""Up to this cost, in forward passes per sample, the frozen model of the same cost is the one without views."""


class FrozenModels:
    """The frozen source model and the frozen views of every block.

    Args:
        cells: All cells.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        labelled = [cell for cell in cells if cell.labelled]
        self._sources = {cell.entry.block: cell for cell in labelled if cell.entry.family == "source"}
        self._views = {(*cell.entry.block, adapter): cell for cell in labelled for adapter in cell.entry.matches}
        self._viewed = any(cell.entry.family == "views" for cell in cells)

    def source(self, cell: Cell) -> Cell | None:
        """The frozen source model on the samples of a cell."""
        return self._sources.get(cell.entry.block)

    def same_cost(self, cell: Cell) -> Cell | None:
        """The frozen model that costs what an adapter's cell costs: averaging views, or the source model alone.

        `None` where no frozen model with views was run at all.
        """
        if cell.entry.family != "adapter" or not self._viewed:
            return None
        views = self._views.get((*cell.entry.block, cell.entry.system))
        return self.source(cell) if views is None and cell.value("forward_equivalents") <= SINGLE_VIEW else views


def paired(*cells: Cell) -> FloatArray:
    """Right and wrong of each cell, `(cells, N)`, NaN on the samples that are not known of all of them."""
    correct: FloatArray = np.stack([cell.correct for cell in cells])
    return np.where(np.isnan(correct).any(axis=0), np.nan, correct)


def difference_interval(pairs: Sequence[tuple[Cell, Cell]], resamples: int, seed: int) -> tuple[float, float]:
    """Bootstrap interval of 95 % of a mean difference in accuracy, seeds and images drawn as for the ranking.

    Args:
        pairs: A system's cell and that of its rival on the same samples, one or more.
        resamples: Number of draws.
        seed: Seed of the draws.

    Returns:
        Lower and upper end, in [-1, 1].
    """
    blocks = tuple(
        Block(cell.entry.task, cell.entry.seed, paired(cell, rival), cell.images, {}) for cell, rival in pairs
    )
    tally = Tally(Experiment(("system", "rival"), blocks, {}))
    accuracy = np.concatenate([totals.accuracy for totals in resampled(tally, resamples, seed)])
    means = mean_score(accuracy[..., :1] - accuracy[..., 1:])[..., 0]
    low, high = np.nanquantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
