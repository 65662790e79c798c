"""Plots of the ratios over the reliable share, and of the scaling curves."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.speed.cells import ALL_NETWORKS, SHARES
from benchmarks.speed.networks import NETWORKS
from benchmarks.speed.summary import WINDOW, Figures, scaled

COLOURS = dict(zip(NETWORKS, ("#2d6fa3", "#c2542d", "#4f8a4c", "#7a5195"), strict=True))
OURS, PUBLISHED, FORWARD = "#2d6fa3", "#c2542d", "#8a8a8a"
APART = 0.008
"""How far side by side the ranges of two networks are drawn."""

LABELS = {"batch": "batch size", "depth": "blocks, batch 64", "classes": "classes, batch 64"}


def draw_speed(cells: list[Figures], file: Path) -> None:
    """Published / ours at batch 64 over the reliable share, a line per network, ranges as bars."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axes, adapter in zip(panels, ("SAR", "EATA"), strict=True):
        for number, (network, colour) in enumerate(COLOURS.items()):
            found = [cell for cell in cells if (cell["adapter"], cell["network"]) == (adapter, network)]
            found = sorted((cell for cell in found if cell["batch"] == 64), key=lambda cell: cell["share"])
            if not found:
                continue
            ratios = [cell["published_to_ours"] for cell in found]
            middle = [ratio["median"] for ratio in ratios]
            below, above = ([abs(ratio[end] - ratio["median"]) for ratio in ratios] for end in ("least", "most"))
            label = f"{ALL_NETWORKS[network].name}, {ALL_NETWORKS[network].size} px"
            axes.errorbar(
                [cell["share"] + APART * (number - 1.5) for cell in found],
                middle,
                yerr=(below, above),
                marker="o",
                markersize=4,
                linewidth=1.4,
                elinewidth=0.8,
                capsize=2,
                color=colour,
                label=label,
            )
        axes.set_xticks(SHARES)
        axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
        axes.set(title=f"{adapter}, batch 64", xlabel="share of reliable images", xlim=(0, 1.05), ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("time of the published loop / time of ours")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def draw_scaling(cells: list[Figures], streams: list[Figures], file: Path) -> None:
    """SAR's time per image over batch size, depth and classes, and its time per batch along a long stream."""
    figure, panels = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    for axes, (part, label) in zip(panels, LABELS.items(), strict=False):
        found = sorted((cell for cell in cells if cell["part"] == part), key=scaled)
        for side, colour in (("ours", OURS), ("published", PUBLISHED)):
            times = [1000 / cell[side]["images_per_second"] for cell in found]
            axes.plot([scaled(cell) for cell in found], times, marker="o", markersize=4, color=colour, label=side)
        if part != "depth" and found:
            axes.set_xscale("log")
            axes.set_xticks([scaled(cell) for cell in found], [str(scaled(cell)) for cell in found])
            axes.minorticks_off()
        _dress(axes, label, "ms per image")
    panels[0].legend(frameon=False)
    for stream in streams:
        for side, colour in (("ours", OURS), ("forward", FORWARD)):
            medians = stream["window_medians_ms"][side]
            panels[3].plot([WINDOW * (number + 1) for number in range(len(medians))], medians, color=colour, label=side)
        panels[3].legend(frameon=False)
    _dress(panels[3], f"batches seen; medians of {WINDOW}", "ms per batch")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _dress(axes: Axes, horizontal: str, vertical: str) -> None:
    axes.set(xlabel=horizontal, ylabel=vertical, ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
