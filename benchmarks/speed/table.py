"""``results.json``, ``results.md`` and the plots, from the cells that were measured."""

import json
from pathlib import Path

from benchmarks.speed.cells import ALL_NETWORKS, BATCHES, SHARES
from benchmarks.speed.networks import NETWORKS, SMALL
from benchmarks.speed.pairs import ADAPTERS
from benchmarks.speed.plots import draw_scaling, draw_speed
from benchmarks.speed.summary import Figures, read, scaled, settings, stream_summary, summary

HERE = Path(__file__).parent
INTRODUCTION = """# Speed

Our adapters against plain loops of the published algorithms (`published.py`): the same adapted parameters, the same
optimiser, eval mode, batch statistics where there is batch normalisation. All sides take turns in one process. Ratios
are medians over repeats, taken repeat by repeat, with the least and the most in brackets; above 1 ours is faster.
Weights and images are random; of four images drawn for each one taken those with the lowest and the highest entropies
are taken, and the margin is set so that the share in the head of a column is reliable. A dash: not measured.
"""
ALL_CELLS = """All times are of one call. *Still reliable*: share of images that also teach in SAR's second pass, by the
published loop; where it is 0 ours leaves out the second backward pass, and the published loop does not. *Passes* are
images sent forward and backward through the network for each image of the stream, counted while it ran. *MiB*: memory
at the peak of a step above what was held before it (resident memory on the CPU). *Ours / floor*: time against the
counted passes at the cost of a plain forward and a plain backward of the whole batch in the same repeat. *Ours /
forward*: against one forward pass of the frozen network without a graph. p99 of a few repeats is their slowest. At
batch 1 a repeat goes through ten images one by one.
"""
REPRODUCE = """    python -m benchmarks.speed.run measure --runs runs/speed
    python -m benchmarks.speed.run table --runs runs/speed

`measure` can be stopped and started again, and takes `--network`, `--adapter`, `--batch`, `--share`, `--part`,
`--repeats` and `--threads`. It refuses to measure when one of our adapters and its published loop disagree.
"""
NO_GPU = (
    "None of this was measured on a GPU: the code for one (events, allocated memory, TF32, bfloat16 autocast) has not\n"
    "been run."
)

HEAD = [
    "adapter",
    "batch",
    "reliable",
    "still reliable",
    "images/s, ours / published",
    "p50 ms",
    "p99 ms",
    "MiB",
    "passes, ours",
    "passes, published",
    "published / ours",
    "ours / floor",
    "ours / forward",
]
SCALING = {"batch": "batch size", "depth": "blocks", "classes": "classes"}


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows]) + "\n"


def ratio(figures: dict[str, float] | None) -> str:
    """Median with its range."""
    return f"{figures['median']:.2f} ({figures['least']:.2f} to {figures['most']:.2f})" if figures else "-"


def network_label(name: str) -> str:
    network = ALL_NETWORKS[name]
    return f"{network.name}, {network.size} px"


def acceptance(cells: list[Figures], adapter: str, precision: str, name: str) -> str:
    """Published / ours at batch 64, a network per row, a reliable share per column."""
    found = {
        (cell["network"], cell["share"]): cell["published_to_ours"]
        for cell in cells
        if (cell["part"], cell["adapter"], cell["batch"], cell["precision"]) == ("grid", adapter, 64, precision)
    }
    rows = [[network_label(row), *(ratio(found.get((row, share))) for share in SHARES)] for row in NETWORKS]
    return table([f"{name}, reliable share", *map(str, SHARES)], rows)


def two(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def line(cell: Figures) -> list[str]:
    """A row of the table of all cells."""
    ours, published, costs = cell["ours"], cell["published"], cell["costs"]
    return [
        cell["adapter"],
        str(cell["batch"]),
        two(cell["reliable"]),
        two(cell["still_reliable"]),
        f"{ours['images_per_second']:.1f} / {published['images_per_second']:.1f}",
        f"{ours['p50_ms']:.1f} / {published['p50_ms']:.1f}",
        f"{ours['p99_ms']:.1f} / {published['p99_ms']:.1f}",
        f"{two(costs['ours']['memory'], 0)} / {two(costs['published']['memory'], 0)}",
        *(f"{costs[side]['forwards']:.2f} + {costs[side]['backwards']:.2f}" for side in ("ours", "published")),
        *(ratio(cell[key]) for key in ("published_to_ours", "ours_to_floor", "ours_to_forward")),
    ]


def every_cell(cells: list[Figures], precisions: list[str]) -> list[str]:
    """A table per network and precision."""
    parts = []
    for name in NETWORKS:
        for precision in precisions:
            found = [cell for cell in cells if (cell["network"], cell["precision"]) == (name, precision)]
            found.sort(key=lambda cell: (ADAPTERS.index(cell["adapter"]), BATCHES.index(cell["batch"]), cell["share"]))
            if found:
                parts += [f"### {network_label(name)}, {precision}\n", table(HEAD, [line(cell) for cell in found])]
    return parts


def scaling(cells: list[Figures], streams: list[Figures]) -> list[str]:
    """SAR over batch size, depth, classes and the length of the stream."""
    parts = []
    for part, label in SCALING.items():
        found = sorted((cell for cell in cells if cell["part"] == part), key=scaled)
        rows = [
            [
                str(scaled(cell)),
                f"{1000 / cell['ours']['images_per_second']:.2f} / {1000 / cell['published']['images_per_second']:.2f}",
                *(ratio(cell[key]) for key in ("published_to_ours", "ours_to_floor", "ours_to_forward")),
            ]
            for cell in found
        ]
        if rows:
            parts.append(table([label, "ms per image, ours / published", *HEAD[-3:]], rows))
    for stream in streams:
        parts.append(
            f"Over {stream['batches']} batches of {stream['batch']} new images, {stream['reliable']:.2f} of them "
            f"reliable, a step of ours takes {stream['first_tenth_to_forward']:.2f} times a forward pass in the "
            f"first tenth and {stream['last_tenth_to_forward']:.2f} times in the last (medians; 3 blocks).\n"
        )
    return parts


def write(runs: Path) -> None:
    """``results.md``, ``results.json``, ``speed.png`` and ``scaling.png`` beside this file."""
    measured = read(runs / "cells")
    cells = [summary(cell) for cell in measured if cell["part"] != "stream"]
    streams = [stream_summary(cell) for cell in measured if cell["part"] == "stream"]
    agreement = json.loads((runs / "agreement.json").read_text())
    where = settings(measured)
    kept = {"settings": where, "agreement": agreement, "cells": cells, "streams": streams}
    (HERE / "results.json").write_text(json.dumps(kept, indent=1) + "\n")
    grid = [cell for cell in cells if cell["part"] == "grid"]
    precisions = list(dict.fromkeys(cell["precision"] for cell in grid))
    parts = [INTRODUCTION, *(setting_line(setting) for setting in where)]
    if all(setting["device"] == "cpu" for setting in where):
        parts.append(NO_GPU + "\n")
    worst = max(figures["difference"] for figures in agreement.values())
    parts.append(
        f"Logits of both sides differ by at most {worst:.1e} over five learning steps on two small networks.\n"
    )
    parts.append("## Published / ours at batch 64\n")
    for precision in precisions:
        for adapter in ("SAR", "EATA"):
            name = f"{adapter}, {precision}" if len(precisions) > 1 else adapter
            parts.append(acceptance(grid, adapter, precision, name))
    parts += ["![over the reliable share](speed.png)\n", "## All cells\n", ALL_CELLS, *every_cell(grid, precisions)]
    scaled_network = f"{network_label(SMALL)}, 12 blocks, 10 classes, batches of 64 where not said otherwise"
    parts.append(f"## Scaling of SAR\n\nReliable share 0.3; {scaled_network}.\n")
    parts += [*scaling(cells, streams), "![scaling](scaling.png)\n", "## How to reproduce\n", REPRODUCE]
    (HERE / "results.md").write_text("\n".join(parts))
    draw_speed([cell for cell in grid if cell["precision"] == "float32"], HERE / "speed.png")
    draw_scaling(cells, streams, HERE / "scaling.png")


def setting_line(setting: Figures) -> str:
    threads = f"{setting['threads']} thread{'s' if setting['threads'] > 1 else ''}"
    return (
        f"{setting['cells']} cells: {setting['processor']} ({setting['machine']}), {setting['device']}, {threads}, "
        f"torch {setting['torch']}, timm {setting['timm']}, {' to '.join(setting['dates'])}.\n"
    )
