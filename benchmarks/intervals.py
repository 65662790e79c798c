"""Means and their uncertainty over seeds."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def interval(values: Sequence[float] | np.ndarray) -> str:
    """Mean and half width of the 95 % t-interval, to one decimal; the mean alone of a single value."""
    mean = np.mean(values)
    if len(values) < 2:
        return f"{mean:.1f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{mean:.1f} ± {half:.1f}"
