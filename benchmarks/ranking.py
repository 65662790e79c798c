"""What the rankings and their intervals are worth where the truth is known, and how long they take.

    python -m benchmarks.ranking

``gaps``: Kendall's tau between planted strengths and each method's scores, where systems are measured mostly on samples
of about their own strength (the simulation of the tests). ``coverage``: how often the 95 % interval of a mean accuracy
holds the true one, with one test set that every seed sees again; ``apart`` gives images new numbers in each block, so
that they are drawn anew for each. ``false_findings``: how often two alike systems, each with its own luck in each run,
are found different. ``local_search``: how often it ends at the proven Kemeny order of 8 systems.
``cpu_seconds``: of one call for 9 systems, 9 blocks, 1000 resamples.
"""

import json
import platform
import time
from pathlib import Path

import numpy as np
from scipy.special import expit
from scipy.stats import kendalltau

from tests.ranking.simulated import block, informative_gaps, rasch
from tta.ranking import Block, Experiment, borda, kemeny, mean_score, plackett_luce, preferences, rank, wins
from tta.ranking.kemeny_order import exact_order, kemeny_cost, local_search_order

MISSING = (0.0, 0.5, 0.8, 0.9, 0.95)
REPETITIONS = 20
COVERAGE_REPETITIONS = 400
STRENGTHS = {"frozen": 0.0, "adapter": 0.5}
Results = dict[str, dict[str, float]]


def gaps(missing: float) -> Results:
    """Tau of each method over simulated experiments."""
    found: dict[str, list[float]] = {"mean": [], "borda": [], "kemeny": [], "plackett_luce": []}
    for seed in range(REPETITIONS):
        strengths, correct = informative_gaps(seed, missing)
        accuracy = correct.mean(axis=2).T
        preferred = preferences(accuracy)
        scores = {
            "mean": mean_score(accuracy),
            "borda": borda(preferred),
            "kemeny": -np.argsort(kemeny(preferred)),
            "plackett_luce": plackett_luce(wins(correct.reshape(len(correct), -1))),
        }
        for method, score in scores.items():
            found[method].append(float(kendalltau(strengths, score).statistic))
    return {
        method: {"mean": float(np.mean(taus)), "smallest": min(taus), "largest": max(taus)}
        for method, taus in found.items()
    }


def coverage(seeds: int, seed_deviation: float, apart: bool, images: int = 200) -> dict[str, float]:
    """Share of intervals that hold the truth, and their mean width.

    The frozen system does the same with every seed; the adapter's strength also varies from seed to seed.
    """
    random = np.random.default_rng(0)
    everywhere, offsets = random.normal(0, 2, 200_000), random.normal(0, seed_deviation, 200_000)
    truth = [expit(STRENGTHS["frozen"] - everywhere).mean(), expit(STRENGTHS["adapter"] + offsets - everywhere).mean()]
    held, width = np.zeros(2), np.zeros(2)
    for repetition in range(COVERAGE_REPETITIONS):
        experiment = Experiment(tuple(STRENGTHS), _test_set(random, seeds, seed_deviation, apart, images), {})
        for system, standing in enumerate(rank(experiment, resamples=200, seed=repetition).methods["mean"]):
            held[system] += standing.low <= truth[system] <= standing.high
            width[system] += standing.high - standing.low
    shares, widths = held / COVERAGE_REPETITIONS, width / COVERAGE_REPETITIONS
    return {
        **{f"{name} held": float(share) for name, share in zip(STRENGTHS, shares, strict=True)},
        **{f"{name} width": float(value) for name, value in zip(STRENGTHS, widths, strict=True)},
    }


def _test_set(
    random: np.random.Generator, seeds: int, seed_deviation: float, apart: bool, images: int
) -> tuple[Block, ...]:
    difficulties = random.normal(0, 2, images)
    frozen = rasch(random, [STRENGTHS["frozen"]], difficulties)
    blocks = []
    for seed in range(seeds):
        strength = STRENGTHS["adapter"] + random.normal(0, seed_deviation)
        correct = np.vstack([frozen, rasch(random, [strength], difficulties)])
        blocks.append(block(correct, seed=seed, images=np.arange(images) + (seed * images if apart else 0)))
    return tuple(blocks)


def false_findings(seeds: int, seed_deviation: float, images: int = 2000) -> dict[str, float]:
    """Share of experiments in which two systems of equal mean strength are found different at 5 %.

    By the paired test alone, by the interval over seeds and images alone, and by both. The strength of each varies from
    run to run on its own.
    """
    random = np.random.default_rng(0)
    test, interval = np.zeros(COVERAGE_REPETITIONS, dtype=bool), np.zeros(COVERAGE_REPETITIONS, dtype=bool)
    for repetition in range(COVERAGE_REPETITIONS):
        difficulties = random.normal(0, 2, images)
        blocks = tuple(
            block(rasch(random, random.normal(0, seed_deviation, 2), difficulties), seed=seed) for seed in range(seeds)
        )
        (pair,) = rank(Experiment(("one", "other"), blocks, {}), resamples=200, seed=repetition).neighbours
        test[repetition] = pair.p < 0.05
        interval[repetition] = pair.low > 0 or pair.high < 0
    found = {"test": test, "interval": interval, "both": test & interval}
    return {name: float(share.mean()) for name, share in found.items()}


def local_search(experiments: int = 2000, systems: int = 8, criteria: int = 9) -> float:
    """Share of random experiments in which local search costs as little as the proven order."""
    preferred = preferences(np.random.default_rng(0).random((experiments, criteria, systems)))
    pairs = zip(preferred, exact_order(preferred), local_search_order(preferred), strict=True)
    return float(np.mean([kemeny_cost(one, best) == kemeny_cost(one, found) for one, best, found in pairs]))


def seconds(images: int) -> float:
    """CPU seconds of one ranking of 9 systems in 9 blocks, 3 tasks with 3 seeds, of the same images."""
    random = np.random.default_rng(0)
    difficulties = random.normal(0, 2, images)
    blocks = tuple(
        block(rasch(random, np.linspace(-1, 1, 9), difficulties), f"task {task}", seed, ece=random.random(9))
        for task in range(3)
        for seed in range(3)
    )
    start = time.process_time()
    rank(Experiment(tuple("abcdefghi"), blocks, {"ece": False}), resamples=1000)
    return time.process_time() - start


def main() -> None:
    results = {
        "setting": {"machine": platform.machine(), "numpy": np.__version__, "threads": 1},
        "gaps": {f"{missing:.0%} missing": gaps(missing) for missing in MISSING},
        "coverage": {
            f"{seeds} seeds, deviation {deviation}, {'apart' if apart else 'one test set'}": coverage(
                seeds, deviation, apart
            )
            for seeds, deviation, apart in (
                (1, 0.0, False),
                (3, 0.0, False),
                (3, 0.0, True),
                (3, 0.5, False),
                (10, 0.5, False),
            )
        },
        "false_findings": {
            f"{seeds} seeds, deviation {deviation}": false_findings(seeds, deviation)
            for seeds in (1, 3, 10)
            for deviation in (0.0, 0.07, 0.2)
        },
        "local_search": local_search(),
        "cpu_seconds": {f"{images} images": seconds(images) for images in (2_000, 10_000, 50_000)},
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
