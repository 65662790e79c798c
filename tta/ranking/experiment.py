"""What is ranked: systems, and what each did on the same samples."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tta.errors import InputError


@dataclass(frozen=True, eq=False)
class Block:
    """What every system did on one stream with one seed.

    Args:
        task: What is measured, such as ``"model / stream"``. Blocks of one task differ in their seed.
        seed: The seed.
        correct: Which system is right on which sample, float64, ``(S, N)``: 1 right, 0 wrong, NaN where the label is
            unknown or the system was not run.
        images: Which image of the data set each sample shows, int64, ``(N,)``. The same image may occur several times
            in a block, and in several blocks.
        metrics: Further metrics by name, float64, ``(S,)``, NaN where missing.

    Raises:
        InputError: If shapes do not fit, or ``correct`` holds another value.
    """

    task: str
    seed: int
    correct: NDArray[np.float64]
    images: NDArray[np.int64]
    metrics: dict[str, NDArray[np.float64]]

    def __post_init__(self) -> None:
        if self.correct.ndim != 2:
            raise InputError(f"{self}: correct has shape {self.correct.shape}; needs (systems, samples)")
        systems, samples = self.correct.shape
        if self.images.shape != (samples,):
            raise InputError(f"{self}: images has shape {self.images.shape}; correct asks for ({samples},)")
        for name, values in self.metrics.items():
            if values.shape != (systems,):
                raise InputError(f"{self}: metric {name} has shape {values.shape}; correct asks for ({systems},)")
        other = self.correct[~(np.isnan(self.correct) | (self.correct == 0) | (self.correct == 1))]
        if other.size:
            raise InputError(f"{self}: correct holds {other[0]}; allowed are 1 (right), 0 (wrong) and NaN (unknown)")

    def __str__(self) -> str:
        return f"block {self.task!r} seed {self.seed}"


@dataclass(frozen=True, eq=False)
class Experiment:
    """Systems and the blocks in which they are compared.

    Args:
        systems: Names of the ``S`` systems. Where nothing else decides, the first comes first.
        blocks: What they did.
        higher_is_better: The direction of every further metric of the blocks.

    Raises:
        InputError: Without systems or blocks, for a name, a block or a direction given twice or not at all, for blocks
            of another number of systems, or for a system without any known sample.
    """

    systems: tuple[str, ...]
    blocks: tuple[Block, ...]
    higher_is_better: dict[str, bool]

    def __post_init__(self) -> None:
        if not self.systems or not self.blocks:
            raise InputError(
                f"experiment of {len(self.systems)} systems and {len(self.blocks)} blocks: needs one of each or more"
            )
        self._check_names()
        for block in self.blocks:
            self._check_block(block)
        known = np.any([(~np.isnan(block.correct)).any(axis=1) for block in self.blocks], axis=0)
        if not known.all():
            raise InputError(
                f"system {self.systems[int(np.argmin(known))]!r}: no sample of it is known in any of the "
                f"{len(self.blocks)} blocks; leave it out"
            )

    def _check_names(self) -> None:
        names = Counter(self.systems).most_common(1)
        if names[0][1] > 1:
            raise InputError(f"system {names[0][0]!r} is named {names[0][1]} times: every system needs its own name")
        blocks = Counter(str(block) for block in self.blocks).most_common(1)
        if blocks[0][1] > 1:
            raise InputError(f"{blocks[0][0]} is given {blocks[0][1]} times: blocks of one task need different seeds")

    def _check_block(self, block: Block) -> None:
        if len(block.correct) != len(self.systems):
            raise InputError(f"{block}: correct has {len(block.correct)} rows; needs {len(self.systems)}, one a system")
        unknown = sorted(set(block.metrics) - set(self.higher_is_better))
        if unknown:
            raise InputError(
                f"{block}: metric {unknown[0]!r} is not in higher_is_better; known: {sorted(self.higher_is_better)}"
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of their first blocks."""
        return tuple(dict.fromkeys(block.task for block in self.blocks))
