"""Tables and pictures of the four rows."""

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from benchmarks.intervals import interval

mpl.use("Agg")
Seeds = list[dict[str, dict[str, float]]]
PROBLEMS = ("digits", "digits_resnet", "folder")
SHOWN = "aligned"
ROWS = ("ERM", "ERM, one step", "meta-trained, before", "meta-trained, after")
SAME = "ERM, one step of the same size"
PAIRS = (("after", "before"), ("after", "ERM"), ("after", "ERM, one step"), ("after", SAME), ("ERM, one step", "ERM"))
SHORT = {"after": "meta-trained, after", "before": "meta-trained, before"}


HOW = "docs/meta_dmoe.md tells what had been seen before"


def accuracies(seeds: Seeds, row: str) -> np.ndarray:
    """Percent, shape (seeds, domains)."""
    return 100 * np.array([list(seed[row].values()) for seed in seeds])


def comparison(seeds: Seeds, one: str, other: str) -> list[str]:
    """Mean difference over seeds, wins over seeds x domains and over seeds, and the p-value of the sign test."""
    difference = accuracies(seeds, SHORT.get(one, one)) - accuracies(seeds, SHORT.get(other, other))
    wins, losses = int((difference > 1e-9).sum()), int((difference < -1e-9).sum())
    p = stats.binomtest(wins, wins + losses, alternative="greater").pvalue if wins + losses else 1.0
    mean = difference.mean(axis=1)
    return [
        f"{one} - {other}",
        interval(mean),
        f"{wins} : {losses}",
        f"{p:.2g}",
        f"{int((mean > 0).sum())}/{len(mean)}",
    ]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def section(problem: str, recipes: dict[str, Seeds], chosen: dict[str, str]) -> str:
    domains = list(next(iter(recipes.values()))[0]["ERM"])
    told = ", ".join(f"{name} {value}" for name, value in chosen.items())
    parts = [f"## {problem}\n", f"Chosen on training domains left out ({HOW}): {told}.\n"]
    for recipe, seeds in recipes.items():
        rows = [
            [
                name,
                *(interval(column) for column in accuracies(seeds, name).T),
                interval(accuracies(seeds, name).mean(1)),
            ]
            for name in (*ROWS, SAME)
        ]
        parts.append(f"### {recipe}, {len(seeds)} seeds\n")
        parts.append(table(["row", *domains, "mean"], rows))
        compared = [comparison(seeds, one, other) for one, other in PAIRS]
        parts.append(table(["difference", "mean over seeds", "wins : losses", "p, sign test", "seeds won"], compared))
    return "\n".join(parts)


def picture(problem: str, seeds: Seeds, file: Path) -> None:
    """Accuracy of every unseen domain in the four rows."""
    domains = list(seeds[0]["ERM"])
    figure, axis = plt.subplots(figsize=(8, 3.2))
    colours = ("#999999", "#d8a24a", "#9cc3e6", "#1f5fa8")
    for number, (name, colour) in enumerate(zip(ROWS, colours, strict=True)):
        values = accuracies(seeds, name)
        places = np.arange(len(domains)) + 0.2 * (number - 1.5)
        axis.bar(places, values.mean(0), 0.18, color=colour, label=name)
        for place, column in zip(places, values.T, strict=True):
            axis.plot([place] * len(column), column, ".", color="black", markersize=2.5)
    axis.set_xticks(range(len(domains)), [domain.partition(":")[0] for domain in domains])
    axis.set(ylabel="accuracy, %", title=f"{problem}: unseen domains, {len(seeds)} seeds")
    axis.set_ylim(top=1.2 * axis.get_ylim()[1])
    axis.legend(frameon=False, fontsize=8, ncols=4, loc="upper center")
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def report(folder: Path) -> None:
    """Write ``results.md`` and one picture for each problem, of its aligned recipe."""
    parts = []
    for name in PROBLEMS:
        if (folder / f"{name}.json").exists():
            stored = json.loads((folder / f"{name}.json").read_text())
            parts.append(section(name, stored["results"], stored["chosen"]))
            picture(
                name, stored["results"].get(SHOWN) or next(iter(stored["results"].values())), folder / f"{name}.png"
            )
    (folder / "results.md").write_text("\n".join(parts))
    print("\n".join(parts))


if __name__ == "__main__":
    report(Path(__file__).parent)
