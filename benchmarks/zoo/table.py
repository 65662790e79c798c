"""Tables and picture of the zoo, from the cells that were measured."""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
FLOOR = 1.0
"""Points below the frozen source that a guarded method may end."""

SHARE = 0.2
"""Share of a healthy method's gain that the guard may cost."""

HEALTHY = 1.0
"""Points above the frozen source from which a method counts as healthy."""

Cell = tuple[str, str, str, int, bool]
Results = dict[Cell, dict[str, Any]]


def read(files: dict[Cell, Path]) -> Results:
    return {cell: json.loads(file.read_text()) for cell, file in files.items() if file.exists()}


def accuracy(results: Results, row: str, setting: str, network: str, seed: int, guarded: bool) -> float | None:
    found = results.get((row, setting, network, seed, guarded), {}).get("accuracy")
    return None if found is None else 100 * found


def mean_of(results: Results, row: str, setting: str, network: str, guarded: bool) -> str:
    seeds = sorted({cell[3] for cell in results})
    values = [value for seed in seeds if (value := accuracy(results, row, setting, network, seed, guarded)) is not None]
    if not values:
        refused = (row, setting, network, 0, guarded)
        return "refused" if "refused" in results.get(refused, {}) else "-"
    return f"{statistics.mean(values):.1f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows]) + "\n"


def accuracies(results: Results, network: str, settings: list[str], names: list[str]) -> str:
    rows = []
    for name in names:
        present = [cell for cell in results if cell[0] == name and cell[2] == network]
        if not present:
            continue
        cells = []
        for setting in settings:
            off = mean_of(results, name, setting, network, False)
            on = mean_of(results, name, setting, network, True)
            cells.append(off if name == "Source" else f"{off} / {on}")
        rows.append([name, *cells, str(len({cell[3] for cell in present}))])
    return table(["adapter", *settings, "seeds"], rows)


def verdicts(results: Results) -> list[dict[str, Any]]:
    """The guard's two promises, for every cell that was measured with and without it."""
    found = []
    for row, setting, network, seed, guarded in results:
        if guarded or row == "Source":
            continue
        off, on = (accuracy(results, row, setting, network, seed, flag) for flag in (False, True))
        source = accuracy(results, "Source", setting, network, seed, False)
        if row == "MEMO" or off is None or on is None or source is None:
            continue
        gain = off - source
        found.append(
            {
                "cell": f"{row}, {setting}, {network}, seed {seed}",
                "row": row,
                "source": source,
                "off": off,
                "on": on,
                "safe": on >= source - FLOOR,
                "was_safe": off >= source - FLOOR,
                "healthy": gain >= HEALTHY,
                "kept": on >= source + (1 - SHARE) * gain,
            }
        )
    return found


def promises(found: list[dict[str, Any]]) -> str:
    healthy = [cell for cell in found if cell["healthy"]]
    harmed = [cell for cell in found if not cell["was_safe"]]
    unsafe = [cell for cell in found if not cell["safe"]]
    costly = [cell for cell in healthy if not cell["kept"]]
    lines = [
        f"- Cells, each one stream of one seed: {len(found)}. Without the guard {len(harmed)} end more than {FLOOR:g} "
        f"point below the frozen source, by {_worst(harmed, 'off'):.1f} points at worst and {_mean(harmed, 'off'):.1f} "
        f"on average; with it {len(unsafe)} of all, by {_worst(unsafe, 'on'):.1f} at worst and "
        f"{_mean(unsafe, 'on'):.1f} on average.",
        f"- Of the {len(healthy)} cells in which a method gains at least {HEALTHY:g} point, the guard costs more "
        f"than a fifth of the gain in {len(costly)}; over all of them it keeps "
        f"{100 * _kept(healthy):.0f} % of the gain.",
    ]
    return "\n".join(lines) + "\n"


def _gaps(cells: list[dict[str, Any]], which: str) -> list[float]:
    return [cell["source"] - cell[which] for cell in cells] or [0.0]


def _worst(cells: list[dict[str, Any]], which: str) -> float:
    return max(_gaps(cells, which))


def _mean(cells: list[dict[str, Any]], which: str) -> float:
    return statistics.mean(_gaps(cells, which))


def _kept(cells: list[dict[str, Any]]) -> float:
    whole = sum(cell["off"] - cell["source"] for cell in cells)
    return sum(cell["on"] - cell["source"] for cell in cells) / whole if whole else 1.0


def failures(found: list[dict[str, Any]]) -> str:
    rows = []
    for cell in found:
        broken = [
            *(["below the source"] if not cell["safe"] else []),
            *(["gain given up"] if cell["healthy"] and not cell["kept"] else []),
        ]
        if broken:
            rows.append([cell["cell"], *(f"{cell[key]:.1f}" for key in ("source", "off", "on")), ", ".join(broken)])
    return table(["cell", "source", "without guard", "with guard", "promise broken"], rows)


def estimates(results: Results) -> str:
    grouped: dict[tuple[bool, str], list[tuple[float, float | None]]] = defaultdict(list)
    for (row, setting, network, seed, guarded), result in results.items():
        off, source = (accuracy(results, name, setting, network, seed, False) for name in (row, "Source"))
        if guarded or off is None or source is None:
            continue
        for name, figures in result["estimates"].items():
            if figures["mean_absolute_error"] is not None:
                pair = (100 * figures["mean_absolute_error"], figures["correlation"])
                grouped[off >= source - FLOOR, name].append(pair)
    rows = []
    for (healthy, name), pairs in sorted(grouped.items(), reverse=True):
        errors = [error for error, _ in pairs]
        correlations = [correlation for _, correlation in pairs if correlation is not None]
        within = sum(error <= 10 for error in errors)
        rows.append(
            [
                name.replace("_", " "),
                "not below the source" if healthy else "below the source",
                str(len(errors)),
                f"{statistics.mean(errors):.1f}",
                f"{within} of {len(errors)}",
                f"{statistics.median(correlations):+.2f}" if correlations else "-",
            ]
        )
    head = ["estimate", "streams on which the method ends", "cells", "mean absolute error, points", "within 10 points"]
    return table([*head, "median correlation over windows"], rows)


def draw(found: list[dict[str, Any]], file: Path) -> None:
    """Every cell's distance from the frozen source, without and with the guard."""
    names = list(dict.fromkeys(cell["row"] for cell in found))
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(names) + 1.2))
    for which, shift, colour in (("off", 0.17, "#c2542d"), ("on", -0.17, "#2d6fa3")):
        points = [(cell[which] - cell["source"], len(names) - 1 - names.index(cell["row"]) + shift) for cell in found]
        label = "without the guard" if which == "off" else "with the guard"
        axes.scatter(*zip(*points, strict=True), s=14, alpha=0.6, color=colour, label=label, linewidths=0)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvline(-FLOOR, color="black", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(names)), reversed(names))
    axes.set_xlabel("accuracy less that of the frozen source model, points; a dot is a stream of one network")
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def write(runs: Path, files: dict[Cell, Path]) -> None:
    """``results.md``, ``results.json`` and ``guard.png`` beside this file."""
    results = read(files)
    networks, names, settings = (list(dict.fromkeys(cell[position] for cell in files)) for position in (2, 0, 1))
    found = verdicts(results)
    parts = ["# Adapters on CIFAR-10 under corruption\n", "Accuracy in percent, without / with the guard.\n"]
    for network in networks:
        parts += [f"## {network}\n", accuracies(results, network, settings, names)]
    parts += ["## What the guard promises\n", promises(found), "![every cell](guard.png)\n"]
    parts += ["### Cells in which it breaks a promise\n", failures(found)]
    parts += ["## Label-free estimates\n", estimates(results)]
    (HERE / "results.md").write_text("\n".join(parts))
    kept = {", ".join(map(str, cell)): result for cell, result in results.items()}
    (HERE / "results.json").write_text(json.dumps(kept, indent=0) + "\n")
    draw(found, HERE / "guard.png")
