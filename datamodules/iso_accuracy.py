"""Curves of constant accuracy between two corruptions, from a frozen model's accuracies on a grid of severities."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.array_types import Floats
from tta.errors import InputError


def read_accuracies(path: str) -> dict[str, float]:
    """Read the accuracy in each domain.

    Args:
        path: A ``summary.json`` with ``{"per_domain": {DOMAIN: {"accuracy": ACCURACY}}}``.

    Returns:
        Accuracy in [0, 1] of each domain.

    Raises:
        InputError: If the file is missing, no JSON, or of another form.
    """
    try:
        summary = json.loads(Path(path).read_text(encoding="utf-8"))
        return {domain: float(scores["accuracy"]) for domain, scores in summary["per_domain"].items()}
    except OSError as error:
        raise InputError(
            f"baseline: {path!r} cannot be read ({error.strerror}); give the summary.json of Source on a Grid stream."
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(
            f"baseline: {path!r} is no JSON file with per_domain accuracies; give the summary.json of Source on a Grid "
            "stream."
        ) from None


@dataclass(frozen=True, eq=False)
class AccuracyGrid:
    """Accuracies of a frozen model under two corruptions at once.

    Attributes:
        first: Severities of the first corruption, ascending from 0, float64, shape ``(A,)``.
        second: Severities of the second, likewise, shape ``(B,)``.
        values: Accuracies in [0, 1], float64, shape ``(A, B)``.
        name: The pair, for messages.
    """

    first: Floats
    second: Floats
    values: Floats
    name: str

    @classmethod
    def between(cls, a: str, b: str, accuracies: dict[str, float]) -> "AccuracyGrid":
        """Pick the grid of a pair from all measurements.

        Args:
            a: Name of the first corruption.
            b: Name of the second.
            accuracies: Accuracy in each domain.

        Returns:
            The grid over all severities at which the two were measured together, and 0.

        Raises:
            InputError: If a point is missing.
        """
        together = [_severities(domain, a, b) for domain in accuracies]
        first, second = ({0.0, *(pair[side] for pair in together if pair)} for side in (0, 1))
        if len(first) == 1:
            raise InputError(
                f"baseline: nothing was measured between {a!r} and {b!r}; run Source on a Grid over these domains."
            )
        table = {_point(a, x, b, y): (x, y) for x in sorted(first) for y in sorted(second)}
        for domain in table:
            if domain not in accuracies:
                raise InputError(f"baseline: {domain!r} was not measured; run Source on a Grid over {a!r} and {b!r}.")
        values = np.array([accuracies[domain] for domain in table]).reshape(len(first), len(second))
        return cls(np.array(sorted(first)), np.array(sorted(second)), values, f"{a!r} and {b!r}")

    def at(self, first: float, second: float) -> float:
        """Interpolate the accuracy bilinearly between measured severities."""
        columns = [np.interp(first, self.first, column) for column in self.values.T]
        return float(np.interp(second, self.second, columns))

    def curve(self, accuracy: float, steps: int) -> list[tuple[float, float]]:
        """Follow a constant accuracy from the first corruption alone to the second alone.

        Args:
            accuracy: In [0, 1].
            steps: Number of equal changes of the ratio of the two severities, each in units of its largest one.

        Returns:
            ``steps + 1`` pairs of severities, found by bisection along rays from the clean point.

        Raises:
            InputError: If the accuracy is not reached for every ratio.
        """
        rays = [self._ray(step / steps) for step in range(steps + 1)]
        lowest = max(self.at(*ray) for ray in rays)
        highest = float(self.values[0, 0])
        if not lowest <= accuracy <= highest:
            raise InputError(
                f"accuracy: {accuracy} is not reached all the way between {self.name}; choose one in "
                f"[{lowest:.4g}, {highest:.4g}]."
            )
        return [self._bisect(ray, accuracy) for ray in rays]

    def _ray(self, share: float) -> tuple[float, float]:
        longest = max(share, 1 - share)
        return float(self.first[-1] * (1 - share) / longest), float(self.second[-1] * share / longest)

    def _bisect(self, ray: tuple[float, float], accuracy: float) -> tuple[float, float]:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            if self.at(ray[0] * middle, ray[1] * middle) > accuracy:
                low = middle
            else:
                high = middle
        return ray[0] * high, ray[1] * high


def _severities(domain: str, a: str, b: str) -> tuple[float, float] | None:
    parts = [part.partition(":") for part in domain.split("+")]
    if [name for name, _, _ in parts] != [a, b] or not all(severity for _, _, severity in parts):
        return None
    return float(parts[0][2]), float(parts[1][2])


def _point(a: str, first: float, b: str, second: float) -> str:
    return "+".join(f"{name}:{severity:g}" for name, severity in ((a, first), (b, second)) if severity) or "clean"
