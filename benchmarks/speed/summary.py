"""Figures of a cell from its times."""

import json
import math
import statistics
from pathlib import Path
from typing import Any

WINDOW = 10
"""Batches of the long stream that go into one median."""

Figures = dict[str, Any]


def read(folder: Path) -> list[Figures]:
    """All cells that were measured, in the order of their names."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]


def summary(cell: Figures) -> Figures:
    """Medians and ranges of one comparison; ratios are taken repeat by repeat."""
    times, costs = cell["times"], cell["costs"]
    sides = {side: [sum(repeat) for repeat in repeats] for side, repeats in times.items()}
    images = cell["batch"] * len(times["ours"][0])
    kept = ("part", "network", "adapter", "batch", "share", "precision", "reliable", "still_reliable", "costs")
    found: Figures = {key: cell[key] for key in kept} | {"repeats": len(sides["ours"])}
    for side in ("ours", "published", "forward"):
        steps = sorted(second for repeat in times[side] for second in repeat)
        found[side] = {
            "images_per_second": images / statistics.median(sides[side]),
            "p50_ms": 1000 * statistics.median(steps),
            "p99_ms": 1000 * steps[math.ceil(0.99 * len(steps)) - 1],
        }
    passes = costs["ours"]
    floors = [
        passes["forwards"] * forward + passes["backwards"] * max(0.0, there_and_back - forward)
        for forward, there_and_back in zip(sides["forward"], sides["there_and_back"], strict=True)
    ]
    found["published_to_ours"] = _ratio(sides["published"], sides["ours"])
    found["ours_to_floor"] = _ratio(sides["ours"], floors)
    found["ours_to_forward"] = _ratio(sides["ours"], sides["forward"])
    return found


def _ratio(above: list[float], below: list[float]) -> dict[str, float]:
    ratios = sorted(a / b for a, b in zip(above, below, strict=True))
    return {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}


def stream_summary(cell: Figures) -> Figures:
    """Times per batch along the long stream; the change over it is that of ours / forward, which load leaves alone."""
    times = cell["times"]
    starts = range(0, len(times["ours"]), WINDOW)
    windows = {
        side: [1000 * statistics.median(of[start : start + WINDOW]) for start in starts] for side, of in times.items()
    }
    ratios = [ours / forward for ours, forward in zip(times["ours"], times["forward"], strict=True)]
    tenth = len(ratios) // 10
    first, last = statistics.median(ratios[:tenth]), statistics.median(ratios[-tenth:])
    kept = {key: cell[key] for key in ("part", "network", "adapter", "batch", "share", "reliable")}
    ends = {"first_tenth_to_forward": first, "last_tenth_to_forward": last}
    return {**kept, "batches": len(ratios), "window_medians_ms": windows, **ends}


def settings(cells: list[Figures]) -> list[Figures]:
    """Every machine and version that cells were measured with, and how many cells and when."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        found.setdefault(json.dumps(cell["setting"], sort_keys=True), []).append(cell["date"])
    return [
        {**json.loads(key), "cells": len(dates), "dates": sorted({min(dates), max(dates)})}
        for key, dates in found.items()
    ]


def scaled(cell: Figures) -> int:
    """What a cell of a scaling curve varies: its batch size, or the number in the name of its network."""
    return int(cell["batch"] if cell["part"] == "batch" else cell["network"].rsplit("_", 1)[1])
