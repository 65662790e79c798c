"""Systems ranked by four methods, with their uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tta.errors import InputError
from tta.ranking.bootstrap import observed, resampled
from tta.ranking.experiment import Experiment
from tta.ranking.kemeny_order import EXACT_UP_TO, kemeny, kemeny_ties_at_random
from tta.ranking.paired_tests import CONFIDENCE, Comparison, compare_neighbours
from tta.ranking.pairwise import borda, mean_score
from tta.ranking.sample_wins import plackett_luce
from tta.ranking.totals import Tally, Totals


@dataclass(frozen=True)
class Standing:
    """Where one system stands under one method.

    Args:
        score: Larger is better, to nine decimals; NaN where the method cannot place the system.
        low: Lower end of the bootstrap interval of 95 % (percentiles), NaN where the score was in no resample.
        high: Its upper end. The score itself may lie outside where resamples are biased.
        rank: From 1, the best; systems of equal score share the better rank, except in the Kemeny order, which is
            strict. A system without score is behind all that have one. Under the mean, systems that lack a task that
            another has share the rank behind all that lack none: their means are of other tasks.
        rank_low: Best rank within the interval. In it, ties of the Kemeny order are broken at random, resample by
            resample.
        rank_high: Worst rank within it.
    """

    score: float
    low: float
    high: float
    rank: int
    rank_low: int
    rank_high: int


@dataclass(frozen=True)
class Ranking:
    """Systems ranked.

    Args:
        systems: Names, as in the experiment.
        methods: Standings of all systems under each method: ``"mean"``, accuracy averaged over tasks, in [0, 1];
            ``"borda"``, the chance to be better than a random other system on a random criterion; ``"kemeny"``, the
            share of other systems behind it in the consensus; ``"plackett_luce"``, strength in log-odds, with mean 0.
        consensus: The Kemeny order, best first; one of them where several contradict as few criteria.
        exact: Whether it is proven that none contradicts fewer, or a local search found it.
        neighbours: Paired tests between neighbours in it.
        disagreements: Sentences: on which pairs mean and consensus disagree, and whom Plackett-Luce cannot place.
    """

    systems: tuple[str, ...]
    methods: dict[str, tuple[Standing, ...]]
    consensus: tuple[str, ...]
    exact: bool
    neighbours: tuple[Comparison, ...]
    disagreements: tuple[str, ...]


def rank(experiment: Experiment, resamples: int = 1000, seed: int = 0) -> Ranking:
    """Rank the systems of an experiment.

    The mean is of accuracies alone. Borda and Kemeny go by criteria: accuracy on each task (averaged over its seeds),
    and each further metric on each task (who is better in more of its seeds). Plackett-Luce goes by single samples,
    and every sample weighs the same.

    Args:
        experiment: What is ranked.
        resamples: Bootstrap draws of seeds and images for the intervals.
        seed: Of these draws; two calls with one seed agree bit for bit.

    Raises:
        InputError: If ``resamples`` is below 1.
    """
    if resamples < 1:
        raise InputError(f"resamples={resamples}: the intervals need 1 or more; 1000 is usual")
    tally = Tally(experiment)
    found = observed(tally)
    order = kemeny(found.preferences)[0]
    scores = _scores(found, order[None])
    draws = _resample(tally, found, order, resamples, seed)
    lacking = _lacking(found.accuracy[0])
    behind = {"mean": lacking}
    return Ranking(
        systems=experiment.systems,
        methods={
            name: _standings(score, draws[name], behind.get(name, np.zeros_like(lacking)))
            for name, score in scores.items()
        },
        consensus=tuple(experiment.systems[index] for index in order),
        exact=len(experiment.systems) <= EXACT_UP_TO,
        neighbours=compare_neighbours(experiment, order.tolist(), found.preferences[0], draws["margins"]),
        disagreements=(
            *_reversals(
                experiment.systems,
                order.tolist(),
                found.preferences[0],
                np.where(lacking, np.nan, scores["mean"][0]),
            ),
            *_unplaced(experiment.systems, scores["plackett_luce"][0]),
        ),
    )


def _resample(
    tally: Tally, found: Totals, order: NDArray[np.int64], resamples: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Scores under every method, ``(R, S)``, and ``"margins"`` of neighbours in an order, ``(R, S - 1)``.

    The mean of a system is NaN in a draw that lost the only seeds of it on a task.
    """
    random = np.random.default_rng((seed, 1))
    ahead, behind = order[:-1], order[1:]
    draws: list[dict[str, NDArray[np.float64]]] = []
    for totals in resampled(tally, resamples, seed):
        scores = _scores(totals, kemeny_ties_at_random(totals.preferences, random))
        scores["mean"][(np.isnan(totals.accuracy) & ~np.isnan(found.accuracy)).any(axis=1)] = np.nan
        margins = totals.wins[:, ahead, behind] - totals.wins[:, behind, ahead]
        draws.append({**scores, "margins": margins})
    return {name: np.concatenate([draw[name] for draw in draws]) for name in draws[0]}


def _lacking(accuracy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which systems lack a task that another has, ``(S,)``, from accuracies ``(T, S)``."""
    missing = np.isnan(accuracy[~np.isnan(accuracy).all(axis=1)])
    return np.asarray(missing.any(axis=0))


def _scores(totals: Totals, order: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Scores under every method, ``(R, S)``, rounded so that rounding errors make no order.

    Args:
        totals: Of ``R`` weightings.
        order: The Kemeny order of each, ``(R, S)``.
    """
    scores = {
        "mean": mean_score(totals.accuracy),
        "borda": borda(totals.preferences),
        "kemeny": _share_behind(totals.preferences, order),
        "plackett_luce": np.stack([plackett_luce(wins) for wins in totals.wins]),
    }
    return {name: np.round(values, 9) + 0.0 for name, values in scores.items()}  # + 0.0: no -0


def _share_behind(preferred: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the other systems that the Kemeny order puts behind each, ``(R, S)``; NaN if compared with none."""
    systems = order.shape[1]
    share = np.empty(order.shape)
    np.put_along_axis(share, order, np.linspace(1.0, 0.0, systems)[None, :], axis=1)
    share[np.isnan(borda(preferred))] = np.nan
    return share


def _standings(
    score: NDArray[np.float64], draws: NDArray[np.float64], behind: NDArray[np.bool_]
) -> tuple[Standing, ...]:
    """Standings from the scores found, ``(1, S)``, those resampled, ``(R, S)``, and who stands behind the others."""
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    ranks, drawn_ranks = _ranks(np.where(behind, np.nan, score))[0], _ranks(np.where(behind, np.nan, draws))
    standings = []
    for system in range(score.shape[1]):
        there = ~np.isnan(draws[:, system])
        low, high, best, worst = np.nan, np.nan, ranks[system], ranks[system]
        if there.any():
            low, high = np.quantile(draws[there, system], ends)
            best = np.quantile(drawn_ranks[there, system], ends[0], method="lower")
            worst = np.quantile(drawn_ranks[there, system], ends[1], method="higher")
        standings.append(
            Standing(float(score[0, system]), float(low), float(high), int(ranks[system]), int(best), int(worst))
        )
    return tuple(standings)


def _ranks(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """One more than there are better systems, ``(R, S)``."""
    placed = np.nan_to_num(scores, nan=-np.inf)
    better: NDArray[np.int64] = (placed[:, None, :] > placed[:, :, None]).sum(axis=2)
    return better + 1


def _reversals(
    systems: Sequence[str], order: Sequence[int], preferred: NDArray[np.float64], mean: NDArray[np.float64]
) -> list[str]:
    """Pairs that the mean, where known, orders otherwise than the consensus, unless their criteria are even."""
    return [
        f"The mean puts {systems[behind]} before {systems[ahead]}; "
        f"the consensus (Kemeny) puts {systems[ahead]} before {systems[behind]}."
        for position, ahead in enumerate(order)
        for behind in order[position + 1 :]
        if mean[behind] > mean[ahead] and preferred[ahead, behind] != preferred[behind, ahead]
    ]


def _unplaced(systems: Sequence[str], strengths: NDArray[np.float64]) -> list[str]:
    """Systems among several that Plackett-Luce cannot place."""
    if len(systems) == 1:
        return []
    return [
        f"Plackett-Luce cannot place {name}: no chain of common samples links it to the other systems."
        for name, strength in zip(systems, strengths, strict=True)
        if np.isnan(strength)
    ]
