"""The plan of a stream: which image is shown when and under which condition, cut into batches, cut for processes.

Two protocols need no order of their own. *Per-domain reset* is the continual order with a host that resets its adapter
whenever the ``domain`` of the batches changes; *batch size one* is any order with ``batch_size=1``.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.array_types import Ints, SmallInts
from datamodules.checks import check_at_least, check_name
from datamodules.covariate import Segment
from datamodules.labels import LabelSchedule
from tta.errors import InputError

Batch = list[tuple[int, int, int]]
"""``(index, condition, domain)`` of every sample of a batch, in the order in which they are stacked."""

ORDERS = ("continual", "mixed")
"""``continual``: one segment after the other; ``mixed``: the images of all segments together."""

BOUNDARIES = ("hidden", "known")
"""``known``: batches are also cut where the segment changes, as published protocols do; ``hidden``: they are not."""


@dataclass(frozen=True, eq=False)
class StreamPlan:
    """Everything about a stream before an image is read; a sample costs 28 bytes.

    Attributes:
        index: Position of each image in the data of its condition, int64, shape ``(N,)``.
        label: Class of each image, int64, shape ``(N,)``.
        condition: Position in ``conditions``, int32, shape ``(N,)``.
        domain: Position in ``domains``, int32, shape ``(N,)``.
        segment: Number of the segment, int32, shape ``(N,)``; 0 for all if the order is mixed.
        conditions: Unique texts, in order of appearance.
        domains: Unique texts, in order of appearance.
        starts: Batch ``k`` is samples ``starts[k]:starts[k + 1]``; int64, shape ``(num_batches + 1,)``.
    """

    index: Ints
    label: Ints
    condition: SmallInts
    domain: SmallInts
    segment: SmallInts
    conditions: list[str]
    domains: list[str]
    starts: Ints

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.starts) - 1

    def batch(self, number: int) -> Batch:
        """Return the samples of a batch, in ``[0, len(self))``."""
        return self.samples(slice(int(self.starts[number]), int(self.starts[number + 1])))

    def samples(self, positions: slice | Ints) -> Batch:
        """Return the samples at some positions of the plan."""
        columns = (self.index[positions], self.condition[positions], self.domain[positions])
        return list(zip(*(column.tolist() for column in columns), strict=True))


@dataclass(frozen=True, eq=False)
class StreamShard:
    """The part of a stream that one process gets.

    Attributes:
        plan: The whole stream.
        positions: Position in the plan of each sample of this part, in order of showing, int64, shape ``(n,)``.
        starts: Batch ``k`` is ``positions[starts[k]:starts[k + 1]]``; int64, shape ``(num_batches + 1,)``.
    """

    plan: StreamPlan
    positions: Ints
    starts: Ints

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.starts) - 1

    def batch(self, number: int) -> Batch:
        """Return the samples of a batch, in ``[0, len(self))``."""
        return self.plan.samples(self.positions[self.starts[number] : self.starts[number + 1]])


@dataclass(frozen=True, eq=False)
class _Pool:
    # One segment's images before a label schedule chooses among them; conditions and domain are those of the plan.
    labels: Ints
    conditions: SmallInts
    domain: int


def make_plan(
    segments: Sequence[Segment],
    labels_of: Callable[[str], Ints],
    num_classes: int,
    schedule: LabelSchedule,
    order: str,
    seed: int,
    batch_size: int,
    boundaries: str,
) -> StreamPlan:
    """Compose covariate schedule, label schedule and order.

    Args:
        segments: What the covariate schedule returns. The conditions of a segment share the images of its first one.
        labels_of: Gives the class of every image of a condition, int64, in ``[0, num_classes)``.
        num_classes: Number of classes.
        schedule: Applied to each segment, or, if the order is mixed, to all (image, condition) pairs together.
        order: One of ``ORDERS``. If it is mixed, each segment's conditions are dealt evenly to its images, at random.
        seed: Non-negative; a segment of the continual order depends only on the seed and the segment's number.
        batch_size: Samples per batch, at least 1. Ragged batches are kept, but a last one of a single sample, of which
            batch statistics cannot be taken, joins the batch before it.
        boundaries: One of ``BOUNDARIES``; the mixed order has none.

    Returns:
        The plan.

    Raises:
        InputError: If a name is unknown, a number too small, there is no image, the conditions of a segment have
            different numbers of images, or a batch is larger than the stream.
    """
    check_name(order, ORDERS, "order")
    check_name(boundaries, BOUNDARIES, "boundaries")
    check_at_least(seed, 0, "seed", "use a non-negative number")
    check_at_least(batch_size, 1, "batch_size", "give the number of images per batch")
    conditions = list(dict.fromkeys(condition for segment in segments for condition in segment.conditions))
    domains = list(dict.fromkeys(segment.domain for segment in segments))
    pools = [_pool(segment, labels_of, conditions, domains) for segment in segments]
    if not sum(len(pool.labels) for pool in pools):
        raise InputError("stream: there is no image in it; check the data set and its split.")
    compose = _continual if order == "continual" else _mixed
    columns = compose(pools, num_classes, schedule, seed)
    by_segment = order == "continual" and boundaries == "known"
    starts = _cut(columns[-1], batch_size, by_segment)
    return StreamPlan(*columns, conditions, domains, starts)


def _pool(segment: Segment, labels_of: Callable[[str], Ints], conditions: list[str], domains: list[str]) -> _Pool:
    labels = labels_of(segment.conditions[0])
    for condition in segment.conditions[1:]:
        size = len(labels_of(condition))
        if size != len(labels):
            raise InputError(
                f"domains: {segment.domain!r} has {len(labels)} images under {segment.conditions[0]!r}, {size} under "
                f"{condition!r}; the conditions of one segment need the same images."
            )
    if len(labels) == 0:
        raise InputError(f"stream: there is no image in domain {segment.domain!r}; check the data set and its split.")
    numbers = [conditions.index(condition) for condition in segment.conditions]
    return _Pool(labels, np.array(numbers, dtype=np.int32), domains.index(segment.domain))


Columns = tuple[Ints, Ints, SmallInts, SmallInts, SmallInts]
"""``index``, ``label``, ``condition``, ``domain`` and ``segment`` of a plan."""


def _continual(pools: list[_Pool], num_classes: int, schedule: LabelSchedule, seed: int) -> Columns:
    chosen = [
        schedule(pool.labels, num_classes, np.random.default_rng([seed, number])) for number, pool in enumerate(pools)
    ]
    sizes = [len(positions) for positions in chosen]
    return (
        np.concatenate(chosen),
        np.concatenate([pool.labels[positions] for pool, positions in zip(pools, chosen, strict=True)]),
        np.concatenate([_spread(pool.conditions, size) for pool, size in zip(pools, sizes, strict=True)]),
        np.repeat(np.array([pool.domain for pool in pools], dtype=np.int32), sizes),
        np.repeat(np.arange(len(pools), dtype=np.int32), sizes),
    )


def _mixed(pools: list[_Pool], num_classes: int, schedule: LabelSchedule, seed: int) -> Columns:
    sizes = [len(pool.labels) for pool in pools]
    labels = np.concatenate([pool.labels for pool in pools])
    positions = schedule(labels, num_classes, np.random.default_rng(seed))
    # NumPy's generators of seed and [seed, 0] are the same, hence the + 1.
    conditions = [
        np.random.default_rng([seed, number + 1]).permutation(_spread(pool.conditions, len(pool.labels)))
        for number, pool in enumerate(pools)
    ]
    domains = np.repeat(np.array([pool.domain for pool in pools], dtype=np.int32), sizes)
    index = np.concatenate([np.arange(size, dtype=np.int64) for size in sizes])
    return (
        index[positions],
        labels[positions],
        np.concatenate(conditions)[positions],
        domains[positions],
        np.zeros(len(positions), dtype=np.int32),
    )


def _spread(conditions: SmallInts, size: int) -> SmallInts:
    return conditions[np.arange(size, dtype=np.int64) * len(conditions) // max(1, size)]


def _cut(segment: SmallInts, size: int, by_segment: bool) -> Ints:
    if len(segment) < size:
        raise InputError(
            f"batch_size: {size} is more than the {len(segment)} images of the stream; use smaller batches."
        )
    changes = np.flatnonzero(np.diff(segment)) + 1 if by_segment else np.zeros(0, dtype=np.int64)
    bounds = [0, *changes.tolist(), len(segment)]
    starts = []
    for start, stop in itertools.pairwise(bounds):
        lone = size > 1 and (stop - start) % size == 1
        starts.append(np.arange(start, stop - lone, size, dtype=np.int64))
    return np.concatenate([*starts, np.array([len(segment)], dtype=np.int64)])


def shard(plan: StreamPlan, rank: int, world_size: int) -> StreamShard:
    """Give one process its part of a stream: no overlap, no loss, and as many batches as every other process.

    In full rounds rank ``r`` takes every ``world_size``-th batch. The samples of the batches that are left over are
    dealt evenly as one more, smaller batch for each rank, which may then hold two domains; if they are fewer than the
    ranks, each goes to a batch of the last full round, which then has one sample more.

    Args:
        plan: The whole stream.
        rank: This process, in ``[0, world_size)``.
        world_size: Number of processes.

    Returns:
        The batches of this rank, in stream order.

    Raises:
        InputError: If the whole stream has fewer samples than there are processes.
    """
    full = len(plan) // world_size * world_size
    sizes = np.diff(plan.starts)[rank:full:world_size]
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
    positions = np.arange(starts[-1]) + np.repeat(plan.starts[rank:full:world_size] - starts[:-1], sizes)
    left = np.arange(plan.starts[full], plan.starts[-1])
    if 0 < len(left) < world_size and full == 0:
        raise InputError(
            f"world_size: {world_size} processes cannot share a stream of {len(left)} samples; "
            "use fewer devices or a longer stream."
        )
    positions = np.concatenate([positions, left[rank::world_size]])
    if len(left) >= world_size:
        starts = np.append(starts, len(positions))
    starts[-1] = len(positions)
    return StreamShard(plan, positions, starts)
