"""What a stream shows, as arrays, and its summary in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]

MOST_IMAGES = 11  # a prime: a stream that recurs 5, 10 or 20 times does not show the same domain in each image
MOST_NAMES = 20
MOST_CONDITIONS = 6


@dataclass(frozen=True)
class Stream:
    """A stream of `N` samples before an adapter sees it.

    Attributes:
        name: Class of the data module.
        order: Such as `continual` or `mixed`.
        boundaries: `known` if batches end where domains end, `hidden` if they do not, `none` if all are mixed.
        covariate: The schedule of the conditions, as text.
        labels: The schedule of the classes, as text.
        seed: Seed of every draw.
        batch_size: Largest number of samples per batch that was asked for.
        class_names: A name per class.
        index: Position of each image in the data of its condition, shape `(N,)`.
        label: Class of each sample, shape `(N,)`; negative where unknown.
        condition: Position of each sample's condition in `conditions`, shape `(N,)`.
        domain: Position of each sample's domain in `domains`, shape `(N,)`.
        starts: First sample of each batch, and `N`, shape `(batches + 1,)`.
        conditions: Such as `gaussian_noise:5`.
        domains: What metrics are grouped by.
        severities: Corruption to severity for each condition; empty for images that are shown as they are.
        shown: Positions of the sample images, ascending, shape `(n,)`.
        images: The sample images, in [0, 1], shape `(n, H, W, C)` with 1 or 3 channels.
    """

    name: str
    order: str
    boundaries: str
    covariate: str
    labels: str
    seed: int
    batch_size: int
    class_names: tuple[str, ...]
    index: Ints
    label: Ints
    condition: Ints
    domain: Ints
    starts: Ints
    conditions: tuple[str, ...]
    domains: tuple[str, ...]
    severities: tuple[Mapping[str, float], ...]
    shown: Ints
    images: NDArray[np.float32]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.label)


def strip_positions(samples: int) -> Ints:
    """Positions of the sample images: the middles of at most eleven equal parts of the stream, shape `(n,)`."""
    number = min(MOST_IMAGES, samples)
    return (2 * np.arange(number, dtype=np.int64) + 1) * samples // (2 * number)


def summary_lines(stream: Stream) -> list[str]:
    """Tell what the stream is, a fact a line."""
    sizes = np.diff(stream.starts)
    return [
        f"{stream.name}: {len(stream):,} samples in {len(sizes):,} batches of {_range(sizes)} "
        f"(batch_size {stream.batch_size})",
        f"Order: {stream.order}, boundaries {stream.boundaries}, seed {stream.seed}",
        f"Covariate schedule: {stream.covariate}",
        f"Label schedule: {stream.labels}",
        f"Domains: {_listed(stream.domains, MOST_NAMES)}",
        f"Conditions: {_conditions(stream)}",
        f"Classes: {_classes(stream)}",
        f"Repeats: {_repeats(stream)}",
    ]


def _range(sizes: Ints) -> str:
    low, high = int(sizes.min()), int(sizes.max())
    return str(low) if low == high else f"{low} to {high}"


def _listed(names: tuple[str, ...], most: int) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{len(names):,} ({', '.join(names[:most])}{more})"


def _conditions(stream: Stream) -> str:
    return "the domains" if stream.conditions == stream.domains else _listed(stream.conditions, MOST_CONDITIONS)


def _classes(stream: Stream) -> str:
    known = stream.label >= 0
    if not known.any():
        return f"{len(stream.class_names):,}, no label is known"
    counts = np.bincount(stream.label[known], minlength=len(stream.class_names))
    seen = counts[counts > 0]
    never = len(counts) - len(seen)
    return (
        f"{len(counts):,}, {seen.min():,} to {seen.max():,} samples each (ratio {seen.max() / seen.min():.3g}"
        f"{f'; {never:,} never shown' if never else ''}), "
        f"{distinct_per_batch(stream.label, stream.starts):.1f} distinct ones per batch on average"
    )


def distinct_per_batch(label: Ints, starts: Ints) -> float:
    """Mean number of different classes in a batch.

    Args:
        label: Class of each sample, shape `(N,)`; negative ones are not counted.
        starts: First sample of each batch, and `N`, shape `(batches + 1,)`.
    """
    batches = len(starts) - 1
    batch = np.repeat(np.arange(batches), np.diff(starts))
    known = label >= 0
    pairs = np.unique(batch[known] * (int(label.max()) + 1) + label[known])
    return len(pairs) / batches


def repeats(stream: Stream) -> int:
    """Number of samples that show an image again under the same condition."""
    keys = np.unique(stream.condition * (int(stream.index.max()) + 1) + stream.index)
    return len(stream) - len(keys)


def _repeats(stream: Stream) -> str:
    number = repeats(stream)
    if number == 0:
        return "no image comes twice under the same condition"
    return f"{number:,} samples ({number / len(stream):.1%}) show an image again under the same condition"
