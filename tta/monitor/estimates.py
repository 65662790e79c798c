"""Label-free estimates of accuracy held against the truth."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tta.estimates.base import AccuracyEstimate


class EstimateTrack(nn.Module):
    """Means of estimates over the window, and how far they lie from the accuracy there.

    Compared is one pair per batch, from the first full window on: the mean estimate over the samples of the window, and
    the accuracy on those of them whose labels are known by then: where labels come late, the older ones, and none
    where they come later than a window. State is in buffers of fixed size.

    Args:
        names: What the estimates are called.
        window: Samples that windowed figures look back over.
    """

    ring: Tensor
    seen: Tensor
    totals: Tensor

    def __init__(self, names: Sequence[str], window: int) -> None:
        super().__init__()
        self.names = tuple(names)
        self.register_buffer("ring", torch.full((len(self.names), window), math.nan, dtype=torch.float64))
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("totals", torch.zeros(len(self.names), len(TOTALS), dtype=torch.float64))

    def update(self, estimates: Sequence[float], size: int, window_accuracy: float) -> dict[str, float]:
        """Take in a batch.

        Args:
            estimates: One value per name, in ``[0, 1]``, NaN where unknown.
            size: Samples of the batch.
            window_accuracy: Accuracy over the window that ends with it, NaN where unknown.

        Returns:
            ``estimate/NAME``, that of the batch, and ``window_estimate/NAME``, the mean over the window's samples.
        """
        now = torch.tensor(estimates, dtype=torch.float64)
        window = self.ring.shape[1]
        slots = torch.arange(int(self.seen) + max(0, size - window), int(self.seen) + size) % window
        self.ring[:, slots] = now.unsqueeze(1)
        self.seen += size
        means = self.ring.nanmean(dim=1)
        self._add(now, size, means, window_accuracy if int(self.seen) >= window else math.nan)
        figures = {f"estimate/{name}": value for name, value in zip(self.names, now.tolist(), strict=True)}
        return figures | {
            f"window_estimate/{name}": value for name, value in zip(self.names, means.tolist(), strict=True)
        }

    def _add(self, now: Tensor, size: int, means: Tensor, accuracy: float) -> None:
        known = torch.isfinite(now).double()
        paired = torch.isfinite(means).double() * (0.0 if math.isnan(accuracy) else 1.0)
        true = torch.full_like(means, 0.0 if math.isnan(accuracy) else accuracy)
        columns = (
            *(size * known, size * now.nan_to_num(), paired, (means - true).abs().nan_to_num() * paired),
            *(value.nan_to_num() * paired for value in (means, true, means * means, true * true, means * true)),
        )
        self.totals += torch.stack(columns, dim=1)

    def summary(self) -> dict[str, dict[str, Any]]:
        """By name: the mean estimate over the stream; over windows, their number, the mean absolute error against the
        accuracy and the correlation with it. ``None`` where unknown; no correlation where either never changed.
        """  # noqa: D205
        return {name: _compared(*row) for name, row in zip(self.names, self.totals.tolist(), strict=True)}

    def _apply(self, fn: Any, recurse: bool = True) -> "EstimateTrack":  # noqa: ANN401  stays on the CPU
        return self


TOTALS = ("samples", "sum", "windows", "error", "mean", "true", "mean_squared", "true_squared", "product")


def names_of(estimates: Sequence[AccuracyEstimate]) -> list[str]:
    """The estimates' names, numbered where one stands twice."""
    names: list[str] = []
    for estimate in estimates:
        twice = sum(other.name == estimate.name for other in estimates[: len(names)])
        names.append(f"{estimate.name}_{twice + 1}" if twice else estimate.name)
    return names


def _compared(
    samples: float,
    total: float,
    windows: float,
    error: float,
    mean: float,
    true: float,
    mean_squared: float,
    true_squared: float,
    product: float,
) -> dict[str, Any]:
    correlation = None
    if windows:
        spreads = (mean_squared / windows - (mean / windows) ** 2, true_squared / windows - (true / windows) ** 2)
        if min(spreads) > 1e-10:
            covariance = product / windows - mean * true / windows**2
            correlation = max(-1.0, min(1.0, covariance / math.sqrt(spreads[0] * spreads[1])))
    return {
        "mean": total / samples if samples else None,
        "windows": int(windows),
        "mean_absolute_error": error / windows if windows else None,
        "correlation": correlation,
    }
