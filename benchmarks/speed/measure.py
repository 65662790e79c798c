"""How one cell is measured."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.cells import ALL_NETWORKS, STREAM_BATCHES, Cell
from benchmarks.speed.clock import peak_memory, precision, step_times
from benchmarks.speed.networks import candidates, images, margin_for_share
from benchmarks.speed.pairs import Pair, Step, make_pair
from benchmarks.speed.published import PublishedSAR, entropies
from tta.monitor import CostMeter

LEARNING_RATE = 1e-8
"""So small that weights, and with them the reliable share, stay where they are over all repeats."""

SECONDS = 10.0
"""Short steps are repeated until the repeats have taken this long, or :data:`MOST_REPEATS` times."""

MOST_REPEATS = 50


def measure(cell: Cell, device: torch.device, repeats: int) -> dict[str, Any]:
    """Everything about one cell.

    Args:
        cell: The cell.
        device: Where to measure.
        repeats: Repeats at least; in each, every side takes its turn.

    Returns:
        The cell, what is reliable, ``costs`` of both sides, and ``times``: seconds by side, repeat and batch.
    """
    network = ALL_NETWORKS[cell.network]
    with precision(cell.precision, device):
        pair = make_pair(network, cell.adapter, cell.batch, cell.share, LEARNING_RATE, device)
        warm_up = 3 if cell.batch >= 256 else 5
        # A method chooses how it goes by the share of reliable samples that it has met.
        for number in range(max(warm_up, len(pair.batches))):
            pair.ours(pair.batches[number % len(pair.batches)])
        found = _alone(pair, cell, device) if cell.part == "stream" else _in_turn(pair, repeats)
    return {**asdict(cell), "margin": pair.margin, **found}


def _in_turn(pair: Pair, repeats: int) -> dict[str, Any]:
    batches = pair.batches
    sides: dict[str, Step] = {
        "ours": pair.ours,
        "published": pair.published,
        "forward": _Forward(pair.published_model),
        "there_and_back": _ThereAndBack(pair.published_model, pair.ours.adapter.trainable(pair.published_model)),
    }
    step_times([pair.published], batches, 1)
    costs = {
        "ours": _cost(pair.ours, pair.ours.model, batches),
        "published": _cost(pair.published, pair.published_model, batches),
    }
    once = step_times(list(sides.values()), batches, 1)
    enough = math.ceil(SECONDS / sum(sum(repeat) for times in once for repeat in times))
    times = step_times(list(sides.values()), batches, max(repeats, min(MOST_REPEATS, enough)))
    return {
        **_taught(pair),
        "costs": costs,
        "times": dict(zip(sides, times, strict=True)),
    }


def _alone(pair: Pair, cell: Cell, device: torch.device) -> dict[str, Any]:
    """Our adapter, and the frozen network beside it, on a long stream of ever new images."""
    network = ALL_NETWORKS[cell.network]
    pair.ours.adapter.margin = margin_for_share(pair.ours.model, candidates(network, cell.batch, device), cell.share)
    sides: dict[str, Step] = {"ours": pair.ours, "forward": _Forward(pair.published_model)}
    times: dict[str, list[float]] = {side: [] for side in sides}
    taught = 0
    for number in range(STREAM_BATCHES):
        x = images(network, cell.batch, 1 + number, device)
        for side, repeats in zip(sides, step_times(list(sides.values()), [x], 1), strict=True):
            times[side] += repeats[0]
        taught += pair.ours.selected()
    return {"reliable": taught / (STREAM_BATCHES * cell.batch), "times": times}


def _cost(step: Step, model: nn.Module, batches: Sequence[Tensor]) -> dict[str, float | None]:
    """Passes per image, counted, and peak memory in MiB."""
    meter = CostMeter(model)

    def run() -> None:
        for x in batches:
            step(x)

    memory = peak_memory(run, batches[0].device)
    meter.detach()
    count = sum(len(x) for x in batches)
    return {"forwards": meter.forwards / count, "backwards": meter.backwards / count, "memory": memory}


def _taught(pair: Pair) -> dict[str, float | None]:
    """After all repeats: share of the images that is reliable, and for SAR still is after the move."""
    reliable = still = 0
    for x in pair.batches:
        if len(pair.batches) > 1:
            pair.ours(x)
            pair.published(x)
        reliable += pair.ours.selected()
        still += pair.published.still if isinstance(pair.published, PublishedSAR) else 0
    count = sum(len(x) for x in pair.batches)
    return {
        "reliable": reliable / count,
        "still_reliable": still / count if isinstance(pair.published, PublishedSAR) else None,
    }


class _Forward:
    """One pass without a graph."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return self.model(x)


class _ThereAndBack:
    """One pass with a graph, and one backward to the adapted parameters."""

    def __init__(self, model: nn.Module, parameters: list[nn.Parameter]) -> None:
        self.model, self.parameters = model, parameters

    def __call__(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        torch.autograd.grad(entropies(logits).mean(), self.parameters)
        return logits.detach()
