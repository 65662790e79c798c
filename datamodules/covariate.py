"""Covariate schedules: under which condition images are shown, and when.

A domain is written as ``NAME``, ``NAME:SEVERITY``, or several of them joined by ``+``, applied from left to right.
Severities lie in [0, 5]; 0 is clean.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from datamodules.checks import check_at_least
from datamodules.iso_accuracy import AccuracyGrid, read_accuracies
from tta.errors import InputError


@dataclass(frozen=True)
class Segment:
    """A part of a stream.

    Attributes:
        domain: What metrics are grouped by.
        conditions: Shown one after the other, spread evenly over the samples of the segment.
    """

    domain: str
    conditions: tuple[str, ...]


class CovariateSchedule(ABC):
    """Order, and possibly severity, of the domains; a pure function of their texts."""

    @abstractmethod
    def __call__(self, domains: Sequence[str]) -> list[Segment]:
        """Return the segments of the stream."""


@dataclass(frozen=True)
class Sequential(CovariateSchedule):
    """One domain after the other."""

    def __call__(self, domains: Sequence[str]) -> list[Segment]:
        """Return a segment for each domain."""
        return [Segment(domain, (domain,)) for domain in domains]


@dataclass(frozen=True)
class Gradual(CovariateSchedule):
    """Each corruption at rising and falling severity, a segment for each; all of one corruption are one domain.

    Attributes:
        severities: Severities in the order of showing, each in [0, 5]; every part of a chain has the same.

    Raises:
        InputError: If there is no severity or one is out of range; when called, for a domain without a corruption.

    References:
        CoTTA (https://arxiv.org/abs/2203.13591) shows CIFAR-10-C gradually, 1 to 5 to 1.
    """

    severities: tuple[float, ...] = (1, 2, 3, 4, 5, 4, 3, 2, 1)

    def __post_init__(self) -> None:
        """Reject severities out of range."""
        _check_severities(self.severities, "severities")

    def __call__(self, domains: Sequence[str]) -> list[Segment]:
        """Return a segment for each domain and severity."""
        named = [(_corruptions(domain), severity) for domain in domains for severity in self.severities]
        return [Segment("+".join(names), (_text((name, severity) for name in names),)) for names, severity in named]


@dataclass(frozen=True)
class Recurring(CovariateSchedule):
    """A whole schedule several times.

    Attributes:
        times: How often, at least 1.
        inner: The schedule that recurs.

    Raises:
        InputError: If ``times`` is below 1.

    References:
        PeTTA (https://arxiv.org/abs/2311.18193) adapts to recurring domains, 20 times.
    """

    times: int
    inner: CovariateSchedule = Sequential()

    def __post_init__(self) -> None:
        """Reject less than one round."""
        check_at_least(self.times, 1, "times", "1 shows every domain once")

    def __call__(self, domains: Sequence[str]) -> list[Segment]:
        """Return the inner schedule's segments, repeated."""
        return self.inner(domains) * self.times


@dataclass(frozen=True)
class Drift(CovariateSchedule):
    """A smooth walk from each domain to the next; a segment ``a>b`` for each pair.

    By default the severity of ``a`` falls linearly from its own to 0 while that of ``b`` rises from 0 to its own. With
    ``baseline`` and ``accuracy`` the walk keeps the accuracy of a frozen model instead: the severities run along the
    curve of that accuracy, from ``a`` alone to ``b`` alone, with their ratio (in units of each one's largest severity)
    changing by equal steps; accuracies between measured severities are interpolated bilinearly.

    Attributes:
        steps: Steps of a walk, at least 1; it has ``steps + 1`` conditions.
        baseline: Path of the ``summary.json`` of the frozen model (adapter ``Source``) on the stream of a ``Grid``
            schedule over the same domains.
        accuracy: Accuracy of that model to keep, in [0, 1].

    Raises:
        InputError: If a number is out of range or only one of ``baseline`` and ``accuracy`` is given; when called, if
            there are fewer than two domains, a domain has no severity, the file cannot be read or lacks a pair's
            measurements, or the accuracy is not reached between two domains.

    References:
        CCC (https://arxiv.org/abs/2306.05401) walks between pairs of corruptions at a constant baseline accuracy.
    """

    steps: int = 20
    baseline: str | None = None
    accuracy: float | None = None

    def __post_init__(self) -> None:
        """Reject arguments that do not fit together."""
        check_at_least(self.steps, 1, "steps", "20 is usual")
        if (self.baseline is None) != (self.accuracy is None):
            raise InputError(
                f"baseline: {self.baseline!r} comes with accuracy {self.accuracy}; give both for a walk at constant "
                "accuracy, or neither."
            )
        if self.accuracy is not None and not 0 <= self.accuracy <= 1:
            raise InputError(f"accuracy: {self.accuracy} is outside [0, 1]; give a share, such as 0.4.")

    def __call__(self, domains: Sequence[str]) -> list[Segment]:
        """Return a segment for each pair of consecutive domains."""
        pairs = _pairs(domains)
        if self.baseline is None or self.accuracy is None:
            return [Segment(_walk_name(a, b), self._constant_severity(a, b)) for a, b in pairs]
        accuracies = read_accuracies(self.baseline)
        return [_iso_walk(_corruption(a), _corruption(b), accuracies, self.accuracy, self.steps) for a, b in pairs]

    def _constant_severity(self, a: str, b: str) -> tuple[str, ...]:
        shares = [step / self.steps for step in range(self.steps + 1)]
        return tuple(_text([*_scaled(a, 1 - share), *_scaled(b, share)]) for share in shares)


@dataclass(frozen=True)
class Grid(CovariateSchedule):
    """All combinations of severities of consecutive domains, each a domain of its own, to measure a baseline for Drift.

    Attributes:
        levels: Severities, each in [0, 5].

    Raises:
        InputError: If there is no level or one is out of range; when called, for fewer than two domains or one that is
            not a single corruption.
    """

    levels: tuple[float, ...] = (0, 1, 2, 3, 4, 5)

    def __post_init__(self) -> None:
        """Reject levels out of range."""
        _check_severities(self.levels, "levels")

    def __call__(self, domains: Sequence[str]) -> list[Segment]:
        """Return a segment for each distinct combination."""
        pairs = [(_corruption(a), _corruption(b)) for a, b in _pairs(domains)]
        texts = [
            _text([(a, first), (b, second)])
            for a, b in pairs
            for first, second in itertools.product(self.levels, repeat=2)
        ]
        return [Segment(text, (text,)) for text in dict.fromkeys(texts)]


def _check_severities(severities: Sequence[float], argument: str) -> None:
    if not severities:
        raise InputError(f"{argument}: the list is empty; give at least one severity in [0, 5].")
    for severity in severities:
        _check_severity(severity, argument)


def _check_severity(severity: float, argument: str) -> float:
    if not 0 <= severity <= 5:
        raise InputError(f"{argument}: {severity} is outside [0, 5]; 0 is clean, 5 the strongest severity.")
    return severity


def _parts(domain: str) -> list[tuple[str, float | None]]:
    pieces = [piece.strip().partition(":") for piece in domain.split("+")]
    return [(name, _severity(domain, text) if colon else None) for name, colon, text in pieces if name != "clean"]


def _severity(domain: str, text: str) -> float:
    try:
        return _check_severity(float(text), "domains")
    except InputError:
        raise
    except ValueError:
        raise InputError(f"domains: {domain!r} has no number after a colon; write NAME:SEVERITY, as fog:3.") from None


def _corruptions(domain: str) -> list[str]:
    names = [name for name, _ in _parts(domain)]
    if not names:
        raise InputError(f"domains: {domain!r} has no corruption whose severity could change; leave it out.")
    return names


def _corruption(domain: str) -> str:
    names = _corruptions(domain)
    if len(names) > 1:
        raise InputError(f"domains: {domain!r} is a chain; walks at constant accuracy need one corruption at a time.")
    return names[0]


def _scaled(domain: str, share: float) -> list[tuple[str, float]]:
    scaled = []
    for name, severity in _parts(domain):
        if severity is None:
            raise InputError(f"domains: {domain!r} has no severity to drift to; write it as {name}:SEVERITY.")
        scaled.append((name, severity * share))
    return scaled


def _text(parts: Iterable[tuple[str, float]]) -> str:
    rounded = [(name, round(severity, 3)) for name, severity in parts]
    return "+".join(f"{name}:{severity:g}" for name, severity in rounded if severity > 0) or "clean"


def _pairs(domains: Sequence[str]) -> list[tuple[str, str]]:
    if len(domains) < 2:
        raise InputError(f"domains: {list(domains)} is too short to walk between two of them; give at least two.")
    return list(itertools.pairwise(domains))


def _iso_walk(a: str, b: str, accuracies: dict[str, float], accuracy: float, steps: int) -> Segment:
    curve = AccuracyGrid.between(a, b, accuracies).curve(accuracy, steps)
    return Segment(f"{a}>{b}", tuple(_text([(a, first), (b, second)]) for first, second in curve))


def _walk_name(a: str, b: str) -> str:
    first, second = ("+".join(name for name, _ in _parts(domain)) or "clean" for domain in (a, b))
    return f"{first}>{second}"
