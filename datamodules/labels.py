"""Label schedules: which class of images is shown when, inside one domain or over a mixed stream.

A schedule is called with ``labels`` (class of every image of a pool, int64, shape ``(N,)``, at least one),
``num_classes`` and a random generator, and returns int64 positions into ``labels`` in the order of showing.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from datamodules.array_types import Floats, Ints
from datamodules.checks import check_at_least, check_name
from datamodules.label_draws import in_passes, sar_stream, without_replacement
from datamodules.priors import (
    DIRECTIONS,
    check_prior,
    check_ratio,
    class_sizes,
    long_tailed_counts,
    members,
    most_with_prior,
    prior_counts,
    read_prior,
)
from tta.errors import InputError

GAMMA_RANGE = (1e-6, 1e6)  # where a sampler in float64 does not overflow; both ends are as good as the limits


class LabelSchedule(ABC):
    """Order, and possibly choice, of images by their labels; a pure function of labels and random generator."""

    @abstractmethod
    def __call__(self, labels: Ints, num_classes: int, rng: np.random.Generator) -> Ints:
        """Return positions into ``labels``: a permutation, a subset or draws with replacement, as the class says."""


@dataclass(frozen=True)
class Shuffled(LabelSchedule):
    """All images in random order: labels are i.i.d. Gives a permutation."""

    def __call__(self, labels: Ints, num_classes: int, rng: np.random.Generator) -> Ints:
        """Return a permutation of all positions."""
        return rng.permutation(len(labels)).astype(np.int64)


@dataclass(frozen=True)
class Sorted(LabelSchedule):
    """All images, classes in ascending order, shuffled inside a class. Gives a permutation."""

    def __call__(self, labels: Ints, num_classes: int, rng: np.random.Generator) -> Ints:
        """Return a permutation of all positions."""
        shuffled = rng.permutation(len(labels)).astype(np.int64)
        return shuffled[np.argsort(labels[shuffled], kind="stable")]


@dataclass(frozen=True)
class Dirichlet(LabelSchedule):
    """All images, with labels that are correlated in time. Gives a permutation.

    The samples of each class are dealt to consecutive slots in shares drawn from a symmetric Dirichlet distribution,
    and shuffled inside a slot. ``gamma -> 0`` puts each class into one slot, ``gamma -> infinity`` looks i.i.d.

    Attributes:
        gamma: Concentration of the Dirichlet distribution, in ``[1e-6, 1e6]``.
        num_slots: Number of slots, at least 1; the number of distinct labels if ``None``.

    Raises:
        InputError: If ``gamma`` is outside its range or ``num_slots`` is below 1.

    References:
        NOTE (https://arxiv.org/abs/2208.05117) and RoTTA (https://arxiv.org/abs/2303.13899) draw correlated streams
        this way; LAME (https://arxiv.org/abs/2201.05718) studies non-i.i.d. streams. There are as many slots as classes
        in a domain, which is the authors' convention up to how fractions of a sample are rounded.
    """

    gamma: float = 0.1
    num_slots: int | None = None

    def __post_init__(self) -> None:
        """Reject numbers out of range."""
        low, high = GAMMA_RANGE
        if not low <= self.gamma <= high:
            raise InputError(
                f"gamma: {self.gamma} is outside [{low:g}, {high:g}]; small sorts the labels, 0.1 is usual."
            )
        if self.num_slots is not None:
            check_at_least(self.num_slots, 1, "num_slots", "leave it out for one slot per class")

    def __call__(self, labels: Ints, num_classes: int, rng: np.random.Generator) -> Ints:
        """Return a permutation of all positions."""
        present = [positions for positions in members(labels, num_classes) if len(positions)]
        num_slots = self.num_slots or len(present)
        dealt, slots = [], []
        for positions in present:
            dealt.append(rng.permutation(positions))
            shares = rng.dirichlet(np.full(num_slots, self.gamma))
            cuts = np.rint(np.cumsum(shares)[:-1] * len(positions)).astype(np.int64)
            slots.append(np.searchsorted(cuts, np.arange(len(positions)), side="right"))
        slot = np.concatenate(slots)
        positions = np.concatenate(dealt)[np.argsort(slot, kind="stable")]
        bounds = np.cumsum(np.bincount(slot, minlength=num_slots))[:-1]
        return np.concatenate([rng.permutation(part) for part in np.split(positions, bounds)])


@dataclass(frozen=True)
class LongTailed(LabelSchedule):
    """Images with exponentially long-tailed labels, in random order. Gives a subset, without replacement.

    Class ``k`` of ``K`` keeps ``int(n * (1 / ratio) ** (k / (K - 1)))`` images (``backward`` counts from the last
    class), with ``n`` the size of the smallest class. A class is left without images if the ratio is larger than ``n``.

    Attributes:
        ratio: Frequency of the most frequent class over that of the rarest, at least 1.
        direction: ``forward``, the first class is the most frequent, or ``backward``, the last one is.

    Raises:
        InputError: If the ratio is below 1 or the direction unknown; when called, if a class has no image.

    References:
        SADE (https://arxiv.org/abs/2107.09249) tests long-tailed recognition under these label distributions.
    """

    ratio: float
    direction: str = "forward"

    def __post_init__(self) -> None:
        """Reject a ratio below one and an unknown direction."""
        check_ratio(self.ratio)
        check_name(self.direction, DIRECTIONS, "direction")

    def __call__(self, labels: Ints, num_classes: int, rng: np.random.Generator) -> Ints:
        """Return a subset of the positions."""
        counts = long_tailed_counts(num_classes, int(class_sizes(labels, num_classes).min()), self.ratio)
        return without_replacement(labels, counts if self.direction == "forward" else counts[::-1], rng)


@dataclass(frozen=True)
class Prior(LabelSchedule):
    """Images with a chosen class prior, in random order. Gives a subset, without replacement.

    It is the largest subset in which the number of images of each class is the prior's share, less than one sample off.

    Attributes:
        prior: Probability of each class.

    Raises:
        InputError: If it is no distribution; when called, if it has the wrong length or a likely class has no image.
    """

    prior: list[float]

    def __post_init__(self) -> None:
        """Reject what is no distribution."""
        check_prior(self.prior, len(self.prior))

    def __call__(self, labels: Ints, num_classes: int, rng: np.random.Generator) -> Ints:
        """Return a subset of the positions."""
        prior = check_prior(self.prior, num_classes)
        return without_replacement(labels, most_with_prior(prior, class_sizes(labels, num_classes, prior)), rng)


@dataclass(frozen=True)
class PriorChange(LabelSchedule):
    """Images with a class prior that changes over time. Gives as many positions as there are images.

    The class counts of each block of samples are the prior's shares at its middle, less than one off; it is shuffled.
    The images of a class come in random order without replacement until all were shown, and then again in another
    order: images repeat where a class is shown more often than it has images.

    Attributes:
        start: Prior at the start: the probability of each class, ``"uniform"``, or the direction and imbalance ratio of
            a long-tailed one, such as ``"forward:50"``.
        end: Prior at the end, likewise.
        kind: ``ramp``: linear from start to end; ``switch``: from one to the other at half of the stream.
        block: Samples of a block, at least 1; the last one may be shorter.

    Raises:
        InputError: For other arguments; when called, if a prior has the wrong length or a likely class no image.
    """

    start: list[float] | str
    end: list[float] | str
    kind: str = "ramp"
    block: int = 100

    def __post_init__(self) -> None:
        """Reject what can be known to be wrong without the number of classes."""
        for argument, prior in (("start", self.start), ("end", self.end)):
            read_prior(prior, 1 if isinstance(prior, str) else len(prior), argument)
        check_name(self.kind, ("ramp", "switch"), "kind")
        check_at_least(self.block, 1, "block", "100 is usual")

    def __call__(self, labels: Ints, num_classes: int, rng: np.random.Generator) -> Ints:
        """Return draws that repeat an image only after all of its class were drawn."""
        start = read_prior(self.start, num_classes, "start")
        end = read_prior(self.end, num_classes, "end")
        class_sizes(labels, num_classes, start + end)
        firsts = np.arange(0, len(labels), self.block)
        shown = [self._block(start, end, int(first), len(labels), rng) for first in firsts]
        return in_passes(labels, np.concatenate(shown), num_classes, rng)

    def _block(self, start: Floats, end: Floats, first: int, total: int, rng: np.random.Generator) -> Ints:
        size = min(self.block, total - first)
        passed = (first + size / 2) / total
        weight = passed if self.kind == "ramp" else float(passed >= 0.5)
        counts = prior_counts((1 - weight) * start + weight * end, size)
        return rng.permutation(np.repeat(np.arange(len(counts), dtype=np.int64), counts))


@dataclass(frozen=True)
class ImbalanceRatio(LabelSchedule):
    """SAR's label shift: blocks in which one class after the other dominates. Gives draws with replacement.

    There is a block for each of the ``K`` classes, in random order. In it a sample is of that class with probability
    ``ratio / (ratio + K - 1)``, else of any other. The stream's random generator is not used: on ImageNet's validation
    images in order of their classes, seeds 2022 and 2023 give the published index files, number for number.

    Attributes:
        ratio: Probability of the dominant class over that of each other one, at least 1: 1 is i.i.d.
        seed: Seed of the class order, non-negative; that of the draws is fixed. As published, the n-th of the ratios 1,
            1000, 2000, 3000, 4000, 5000 and 500000 takes the n-th shuffle; any other ratio takes the first.
        blocks_per_class: Times the sequence of classes is gone through, at least 1.
        block: Samples of a block, at least 1.

    Raises:
        InputError: If an argument is too small; when called, if a class has no image.

    References:
        SAR (https://arxiv.org/abs/2302.12400), https://github.com/mr-eggplant/SAR.
    """

    ratio: float
    seed: int = 2022
    blocks_per_class: int = 1
    block: int = 100

    def __post_init__(self) -> None:
        """Reject numbers that are too small."""
        check_ratio(self.ratio)
        check_at_least(self.seed, 0, "seed", "2022 is published")
        for argument in ("blocks_per_class", "block"):
            check_at_least(getattr(self, argument), 1, argument, "leave it out for the published value")

    def __call__(self, labels: Ints, num_classes: int, rng: np.random.Generator) -> Ints:
        """Return ``K * blocks_per_class * block`` draws with replacement; ``rng`` is ignored."""
        class_sizes(labels, num_classes)
        return sar_stream(labels, num_classes, self.ratio, self.seed, self.blocks_per_class, self.block)
