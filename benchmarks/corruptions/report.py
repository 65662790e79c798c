"""Tables and a picture of what ``run.py`` measured."""

import statistics
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from benchmarks.corruptions.measures import MEASURES
from datamodules.corruptions import Domain, corrupt

LIMIT = 0.05
Rows = list[dict[str, Any]]


def agrees(row: dict[str, Any]) -> bool:
    return all(row["difference"][measure] <= LIMIT for measure in MEASURES)


def write_tables(results: dict[str, Any], path: Path) -> None:
    rows: Rows = results["agreement"]
    images = results["images"]
    failed = [row for row in rows if not agrees(row)]
    text = [
        "# Corruptions: agreement with the published definitions, and speed",
        f"{images['count']} images from {images['source']}. Relative differences in percent, of averages over all "
        "images and draws; in brackets the noise floor, the reference against itself under other draws. Draws of each "
        f"image at 224 pixels, twice as many at fewer: {_listed(results['draws'])}; two of other stochastic "
        "corruptions. "
        f"{len(rows) - len(failed)} of {len(rows)} rows agree within 5 % in all four measures.",
        "## Summary: largest difference over five severities, in percent (noise floor)",
        *_summary(rows),
        "## Rows beyond 5 %",
        *(_table(failed) if failed else ["None."]),
        "## Speed at 224 pixels, one thread, images per second (mean over severities 1, 3, 5)",
        *_speed(results["speed"]),
        "## All rows",
        *_table(rows),
    ]
    path.write_text("\n\n".join(text) + "\n")


def _listed(draws: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in draws.items())


def _summary(rows: Rows) -> list[str]:
    lines = ["| corruption | set | reference | " + " | ".join(MEASURES) + " | largest pixel difference | verdict |"]
    lines.append("|---|---|---|" + "---|" * (len(MEASURES) + 2))
    for name, size in dict.fromkeys((row["name"], row["size"]) for row in rows):
        own = [row for row in rows if (row["name"], row["size"]) == (name, size)]
        worst = [
            f"{100 * max(row['difference'][measure] for row in own):.1f} "
            f"({100 * max(row['floor'][measure] for row in own):.1f})"
            for measure in MEASURES
        ]
        pixels = str(max(row["pixels"]["max"] for row in own)) if "pixels" in own[0] else ""
        verdict = "agrees" if all(map(agrees, own)) else "**differs**"
        lines.append(f"| {name} | {size} | {own[0]['reference']} | {' | '.join(worst)} | {pixels} | {verdict} |")
    return ["\n".join(lines)]


def _table(rows: Rows) -> list[str]:
    lines = [
        "| corruption | set | severity | " + " | ".join(MEASURES) + " | worst band | pixels: mean, largest | verdict |"
    ]
    lines.append("|---|---|---|" + "---|" * (len(MEASURES) + 3))
    for row in rows:
        shown = " | ".join(
            f"{100 * row['difference'][measure]:.1f} ({100 * row['floor'][measure]:.1f})"
            for measure in (*MEASURES, "worst_band")
        )
        pixels = f"{row['pixels']['mean']:.3f}, {row['pixels']['max']}" if "pixels" in row else ""
        verdict = "agrees" if agrees(row) else "**differs**"
        lines.append(f"| {row['name']} | {row['size']} | {row['severity']} | {shown} | {pixels} | {verdict} |")
    return ["\n".join(lines)]


def _speed(speeds: Rows) -> list[str]:
    lines = ["| corruption | ours | imagecorruptions | ratio |", "|---|---|---|---|"]
    for row in speeds:
        ours, theirs = row["images_per_second"].values()
        lines.append(f"| {row['name']} | {ours:.0f} | {theirs:.0f} | {row['ratio']:.1f} |")
    mean = statistics.geometric_mean(row["ratio"] for row in speeds)
    slowest = min(speeds, key=lambda row: row["ratio"])
    summary = f"Geometric mean of the ratios: {mean:.1f}; lowest: {slowest['ratio']:.1f} ({slowest['name']})."
    return ["\n".join(lines), summary]


def draw_picture(image: Tensor, names: list[str], path: Path) -> None:
    """Show one image, ``(1, 3, H, W)``, under every corruption at severities 1, 3 and 5."""
    matplotlib.use("Agg")
    across = 5
    down = -(-len(names) // across)
    figure, axes = plt.subplots(down, across, figsize=(across * 3.3, down * 1.35), dpi=95)
    for panel in axes.flat:
        panel.axis("off")
    for panel, name in zip(axes.flat, names, strict=False):
        shown = [corrupt(image, Domain(((name, severity),)), 0, [0])[0] for severity in (1, 3, 5)]
        panel.imshow(torch.cat(shown, 2).permute(1, 2, 0).numpy())
        panel.set_title(f"{name} 1, 3, 5", fontsize=8)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, pil_kwargs={"optimize": True})
    plt.close(figure)
