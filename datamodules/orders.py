"""The order in which a stream shows its images: pure functions of labels, domains and a seed.

Two protocols need no order of their own. *Per-domain reset* is the continual order with a host that resets its adapter
whenever the ``domain`` of the batches changes; *batch size one* is any order with ``batch_size=1``.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.checks import check_name
from tta.errors import InputError

Ints = NDArray[np.int64]
Batch = list[tuple[int, int]]
"""``(index, domain)`` of every sample of a batch, in the order in which they are stacked."""

GAMMA_RANGE = (1e-6, 1e6)
"""Dirichlet concentrations that a sampler in float64 draws without overflow; both ends are as good as the limits."""


@dataclass(frozen=True)
class Order:
    """A stream as a sequence of (image, domain) pairs.

    Attributes:
        index: Position of each image in its data set, int64, shape ``(N,)``.
        domain: Position of each domain in the list of domains, int64, shape ``(N,)``.
    """

    index: Ints
    domain: Ints


def _domain_after_domain(inner: Callable[[np.random.Generator], Ints], num_domains: int, seed: int) -> Order:
    parts = [inner(np.random.default_rng([seed, domain])) for domain in range(num_domains)]
    sizes = [len(part) for part in parts]
    return Order(np.concatenate(parts), np.repeat(np.arange(num_domains, dtype=np.int64), sizes))


def continual(labels: Ints, num_domains: int, seed: int) -> Order:
    """Show one domain after the other, shuffled inside each.

    Args:
        labels: Class of every image, int64, shape ``(N,)``.
        num_domains: How many times the images are shown, once per domain.
        seed: Non-negative; a domain's shuffle depends only on the seed and the domain's position.

    Returns:
        All ``N * num_domains`` pairs.
    """
    return _domain_after_domain(lambda rng: rng.permutation(len(labels)).astype(np.int64), num_domains, seed)


def mixed(labels: Ints, num_domains: int, seed: int) -> Order:
    """Shuffle images and domains together, so that neighbours come from unrelated domains.

    Args:
        labels: Class of every image, int64, shape ``(N,)``.
        num_domains: How many times the images are shown, once per domain.
        seed: Non-negative.

    Returns:
        All ``N * num_domains`` pairs.
    """
    pairs = np.random.default_rng(seed).permutation(len(labels) * num_domains).astype(np.int64)
    return Order(pairs % max(1, len(labels)), pairs // max(1, len(labels)))


def label_sorted(labels: Ints, num_domains: int, seed: int) -> Order:
    """Show one domain after the other, classes in ascending order inside each, shuffled inside a class.

    Args:
        labels: Class of every image, int64, shape ``(N,)``.
        num_domains: How many times the images are shown, once per domain.
        seed: Non-negative.

    Returns:
        All ``N * num_domains`` pairs.
    """

    def inner(rng: np.random.Generator) -> Ints:
        shuffled = rng.permutation(len(labels)).astype(np.int64)
        return shuffled[np.argsort(labels[shuffled], kind="stable")]

    return _domain_after_domain(inner, num_domains, seed)


def _deal(labels: Ints, num_slots: int, gamma: float, rng: np.random.Generator) -> Ints:
    slots: list[list[Ints]] = [[] for _ in range(num_slots)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label)).astype(np.int64)
        shares = rng.dirichlet(np.full(num_slots, gamma))
        cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for slot, part in zip(slots, np.split(members, cuts), strict=True):
            slot.append(part)
    return np.concatenate([rng.permutation(np.concatenate(slot)) for slot in slots])


def correlated(labels: Ints, num_domains: int, seed: int, gamma: float = 0.1, num_slots: int | None = None) -> Order:
    """Show one domain after the other with labels that are correlated in time.

    Inside a domain the samples of each class are dealt to consecutive slots in proportions drawn from a symmetric
    Dirichlet distribution, and shuffled inside a slot. ``gamma -> 0`` puts each class into a single slot,
    ``gamma -> infinity`` spreads every class evenly, which looks i.i.d.

    Args:
        labels: Class of every image, int64, shape ``(N,)``.
        num_domains: How many times the images are shown, once per domain.
        seed: Non-negative.
        gamma: Concentration of the Dirichlet distribution, in ``[1e-6, 1e6]``.
        num_slots: Number of slots of a domain, at least 1; the number of distinct labels if ``None``.

    Returns:
        All ``N * num_domains`` pairs.

    Raises:
        InputError: If ``gamma`` is outside its range or ``num_slots`` is below 1.

    References:
        NOTE (https://arxiv.org/abs/2208.05117) and RoTTA (https://arxiv.org/abs/2303.13899) draw temporally correlated
        streams this way; LAME (https://arxiv.org/abs/2201.05718) studies non-i.i.d. streams. The slots are counted per
        domain, as many as classes, which is the authors' convention up to how fractions of a sample are rounded.
    """
    low, high = GAMMA_RANGE
    if not low <= gamma <= high:
        raise InputError(f"gamma: {gamma} is outside [{low:g}, {high:g}]; small values sort the labels, 0.1 is usual.")
    slots = len(np.unique(labels)) if num_slots is None else num_slots
    if slots < 1:
        raise InputError(f"num_slots: {slots} is below 1; give at least one label and at least one slot.")
    return _domain_after_domain(lambda rng: _deal(labels, slots, gamma, rng), num_domains, seed)


ORDERS: dict[str, Callable[..., Order]] = {
    "continual": continual,
    "correlated": correlated,
    "label_sorted": label_sorted,
    "mixed": mixed,
}
"""Every order by its name; all take ``(labels, num_domains, seed)``."""


def make_order(name: str, labels: Ints, num_domains: int, seed: int, gamma: float = 0.1) -> Order:
    """Compute an order by its name.

    Args:
        name: A key of ``ORDERS``.
        labels: Class of every image, int64, shape ``(N,)``.
        num_domains: How many times the images are shown, once per domain.
        seed: Non-negative.
        gamma: Concentration of the ``correlated`` order; the others ignore it.

    Returns:
        All ``N * num_domains`` pairs.

    Raises:
        InputError: If the name is unknown or ``gamma`` does not fit the correlated order.
    """
    check_name(name, ORDERS, "order")
    params = {"gamma": gamma} if name == "correlated" else {}
    return ORDERS[name](labels, num_domains, seed, **params)


def batches(order: Order, batch_size: int, by_domain: bool) -> list[Batch]:
    """Cut an order into consecutive batches; ragged ones are kept, but no sample is left alone.

    A last batch of one sample, of which batch statistics cannot be taken, joins the batch before it.

    Args:
        order: The stream, ``N`` pairs.
        batch_size: Samples per batch, at least 1; a batch that takes in a lone last sample has one more.
        by_domain: Also cut wherever the domain changes, as published protocols do, so that a batch has one domain.

    Returns:
        Non-empty batches that follow the order and contain each of its pairs once.
    """
    pairs = list(zip(order.index.tolist(), order.domain.tolist(), strict=True))
    changes = (np.flatnonzero(np.diff(order.domain)) + 1).tolist() if by_domain else []
    starts = [0, *changes]
    stops = [*changes, len(pairs)]
    cuts = (_cut(start, stop, batch_size) for start, stop in zip(starts, stops, strict=True))
    return [pairs[first:last] for bounds in cuts for first, last in itertools.pairwise(bounds)]


def _cut(start: int, stop: int, size: int) -> list[int]:
    bounds = [*range(start, stop, size), stop]
    if size > 1 and len(bounds) > 2 and bounds[-1] - bounds[-2] == 1:
        del bounds[-2]
    return bounds


def shard(stream: Sequence[Batch], rank: int, world_size: int) -> list[Batch]:
    """Give one process its part of a stream: no overlap, no loss, and as many batches as every other process.

    In full rounds rank ``r`` takes every ``world_size``-th batch. The samples of the batches that are left over are
    dealt evenly as one more, smaller batch for each rank, which may then hold two domains; if they are fewer than the
    ranks, each goes to a batch of the last full round, which then has ``batch_size + 1`` samples.

    Args:
        stream: All batches.
        rank: This process, in ``[0, world_size)``.
        world_size: Number of processes.

    Returns:
        The batches of this rank, in stream order.

    Raises:
        InputError: If the whole stream has fewer samples than there are processes.
    """
    full = len(stream) // world_size * world_size
    mine = list(stream[rank:full:world_size])
    left = [pair for batch in stream[full:] for pair in batch]
    if len(left) >= world_size:
        mine.append(left[rank::world_size])
    elif left and not mine:
        raise InputError(
            f"world_size: {world_size} processes cannot share a stream of {len(left)} samples; "
            "use fewer devices or a longer stream."
        )
    elif rank < len(left):
        mine[-1] = [*mine[-1], left[rank]]
    return mine
