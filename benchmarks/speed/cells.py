"""What is measured: the grid of cells, and the cells of the scaling curves."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from benchmarks.speed.clock import PRECISIONS
from benchmarks.speed.networks import CLASSES, DEPTHS, NETWORKS, SCALING_NETWORKS, SMALL
from benchmarks.speed.pairs import ADAPTERS

ALL_NETWORKS = {**NETWORKS, **SCALING_NETWORKS}
SHARES = (0.1, 0.3, 0.5, 0.9, 1.0)
BATCHES = (64, 16, 1, 256)
SCALING_BATCHES = (1, 4, 16, 64, 256)
SCALING_SHARE = 0.3
STREAM_BATCHES = 500
STREAM_BATCH = 16
PARTS = ("grid", "batch", "depth", "classes", "stream")


@dataclass(frozen=True)
class Cell:
    """One comparison: ``part`` is ``grid``, ``batch``, ``depth``, ``classes`` or ``stream``."""

    part: str
    network: str
    adapter: str
    batch: int
    share: float
    precision: str = "float32"

    @property
    def stem(self) -> str:
        """Name of the cell's file."""
        return f"{self.part}-{self.network}-{self.adapter}-{self.batch}-{self.share}-{self.precision}"

    @property
    def work(self) -> float:
        """Rough share in the time of the whole, for the time left."""
        batch = STREAM_BATCHES * STREAM_BATCH / 20 if self.part == "stream" else self.batch
        return 10 + 1.5 * batch * ALL_NETWORKS[self.network].work


def cells(device: torch.device) -> Iterator[Cell]:
    """All cells, batches of 64 first; Tent, for which every sample teaches, at one share."""
    for batch in BATCHES:
        for adapter, network, share in itertools.product(ADAPTERS, NETWORKS, SHARES):
            if adapter != "Tent" or share == 1.0:
                for name in PRECISIONS[device.type]:
                    yield Cell("grid", network, adapter, batch, share, name)
        if batch == BATCHES[0]:
            yield from scaling_cells()


def scaling_cells() -> Iterator[Cell]:
    """SAR over batch size, depth, classes and length of the stream."""
    for batch in SCALING_BATCHES:
        yield Cell("batch", SMALL, "SAR", batch, SCALING_SHARE)
    for depth in DEPTHS:
        yield Cell("depth", f"{SMALL}_depth_{depth}", "SAR", 64, SCALING_SHARE)
    for classes in CLASSES:
        yield Cell("classes", f"{SMALL}_classes_{classes}", "SAR", 64, SCALING_SHARE)
    yield Cell("stream", f"{SMALL}_depth_{DEPTHS[0]}", "SAR", STREAM_BATCH, SCALING_SHARE)
