"""The order that contradicts the fewest preferences (Kemeny)."""

import numpy as np
from numpy.typing import NDArray

from tta.ranking.pairwise import borda

EXACT_UP_TO = 8
"""Largest number of systems whose Kemeny order is proven."""


def kemeny(preferred: NDArray[np.float64]) -> NDArray[np.int64]:
    """Kemeny consensus: the order of systems that contradicts the fewest preferences.

    A system that beats every other one on most criteria comes first (Condorcet); a cycle is cut where that contradicts
    the fewest criteria. Exact up to :data:`EXACT_UP_TO` systems, by local search above. Systems that share no criterion
    with any other come last, in their own order.

    Args:
        preferred: Of :func:`~tta.ranking.preferences`, ``(..., S, S)``.

    Returns:
        Indices of systems, best first, ``(..., S)``, int64. Of several exact orders the one whose first system has the
        lowest index, then its second, and so on.

    References:
        What are the best Systems? New Perspectives on NLP Benchmarking, NeurIPS 2022, https://arxiv.org/abs/2202.03799.
    """
    compared = np.isfinite(borda(preferred))
    placed = preferred + (compared[..., :, None] & ~compared[..., None, :])
    return exact_order(placed) if preferred.shape[-1] <= EXACT_UP_TO else local_search_order(placed)


def kemeny_ties_at_random(preferred: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int64]:
    """Kemeny consensus with the systems dealt anew to their indices, so that no tie goes the same way each time.

    Args:
        preferred: Of :func:`~tta.ranking.preferences`, ``(R, S, S)``.
        random: Deals the systems, row by row.

    Returns:
        Indices of systems, best first, ``(R, S)``, int64.
    """
    dealt = random.permuted(np.tile(np.arange(preferred.shape[-1]), (len(preferred), 1)), axis=1)
    rows = np.arange(len(preferred))[:, None, None]
    order = kemeny(preferred[rows, dealt[:, :, None], dealt[:, None, :]])
    return np.take_along_axis(dealt, order, axis=1)


def kemeny_cost(preferred: NDArray[np.float64], order: NDArray[np.int64]) -> float:
    """How many preferences an order contradicts.

    Args:
        preferred: Of :func:`~tta.ranking.preferences`, ``(S, S)``.
        order: Indices of systems, best first, ``(S,)``.
    """
    return float(np.tril(preferred[np.ix_(order, order)]).sum())


def exact_order(preferred: NDArray[np.float64]) -> NDArray[np.int64]:
    """The Kemeny order, by dynamic programming over subsets of systems, in ``2^S S`` steps.

    The cheapest order of a subset is that of the subset without its first system, behind that system.

    Args:
        preferred: ``(..., S, S)``.

    Returns:
        ``(..., S)``, as in :func:`kemeny`.
    """
    systems = preferred.shape[-1]
    flat = preferred.reshape(-1, systems, systems)
    rows = len(flat)
    against = np.zeros((2**systems, rows, systems))
    cost = np.zeros((2**systems, rows))
    first = np.zeros((2**systems, rows), dtype=np.int64)
    for subset in range(1, 2**systems):
        members = [system for system in range(systems) if subset >> system & 1]
        against[subset] = against[subset & (subset - 1)] + flat[:, members[0]]
        costs = np.stack([cost[subset ^ (1 << system)] + against[subset, :, system] for system in members])
        best = costs.argmin(axis=0)
        cost[subset] = costs[best, np.arange(rows)]
        first[subset] = np.array(members)[best]
    order = np.zeros((rows, systems), dtype=np.int64)
    left = np.full(rows, 2**systems - 1)
    for position in range(systems):
        order[:, position] = first[left, np.arange(rows)]
        left ^= 1 << order[:, position]
    return order.reshape(preferred.shape[:-1])


def local_search_order(preferred: NDArray[np.float64]) -> NDArray[np.int64]:
    """An order that no move of a single system improves, from the Borda order by the best move each time.

    Args:
        preferred: ``(..., S, S)``.

    Returns:
        Indices of systems, best first, ``(..., S)``, int64.
    """
    systems = preferred.shape[-1]
    flat = preferred.reshape(-1, systems, systems)
    order = np.argsort(-borda(flat), axis=-1, kind="stable")
    open_rows = np.arange(len(flat))
    while len(open_rows):
        change = _changes(flat[open_rows], order[open_rows]).reshape(len(open_rows), -1)
        best = change.argmin(axis=1)
        improved = change[np.arange(len(open_rows)), best] < -1e-9
        open_rows, best = open_rows[improved], best[improved]
        order[open_rows] = _moved(order[open_rows], best // systems, best % systems)
    return order.reshape(preferred.shape[:-1])


def _changes(preferred: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.float64]:
    """What it adds to the cost to move the system at one position to another, ``(R, from, to)``."""
    sorted_rows = np.take_along_axis(preferred, order[:, :, None], axis=1)
    ordered = np.take_along_axis(sorted_rows, order[:, None, :], axis=2)
    margin = ordered - ordered.swapaxes(1, 2)
    through = margin.cumsum(axis=2)
    position = np.arange(order.shape[1])
    towards_front = position[None, :] < position[:, None]
    passed = np.where(towards_front, through - margin, through)
    change: NDArray[np.float64] = passed - through[:, position, position, None]
    return change


def _moved(order: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Orders ``(R, S)`` with the system at position ``start`` (``(R,)``) moved to position ``end``."""
    position = np.arange(order.shape[1])[None, :]
    start, end = start[:, None], end[:, None]
    back = (position >= start) & (position < end)
    forth = (position > end) & (position <= start)
    return np.take_along_axis(order, np.where(position == end, start, position + back - forth), axis=1)
