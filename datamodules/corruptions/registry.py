"""Where corruptions register, and how a severity becomes their parameters."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from datamodules.checks import check_name
from datamodules.corruptions.levels import LEVELS
from tta.errors import InputError

Corruption = Callable[..., Tensor]
CORRUPTIONS: dict[str, Corruption] = {}
"""Every corruption by its name.

Each maps images (float32, ``(B, C, H, W)``, in [0, 1], one or three channels), their ``Draws`` and the parameters of
its row of ``LEVELS`` to corrupted images of the same shape and dtype, not yet clamped to [0, 1].
"""


def corruption(function: Corruption) -> Corruption:
    """Register a corruption under the name of its function."""
    CORRUPTIONS[function.__name__] = function
    return function


def check_severity(severity: float) -> None:
    """Reject a severity that cannot be applied.

    Args:
        severity: Any number.

    Raises:
        InputError: If it is outside [0, 5] or not a number.
    """
    if not 0 <= severity <= 5:
        raise InputError(
            f"severity: {severity} is outside [0, 5]; 1 is mild, 5 is hard, fractions are allowed and 0 is clean."
        )


def nearest_levels(shorter_side: int) -> str:
    """Choose the published parameter set for images of a size.

    Args:
        shorter_side: Of the images, in pixels.

    Returns:
        ``"32"`` up to 48 pixels, ``"64"`` up to 128, else ``"224"``.
    """
    return "32" if shorter_side <= 48 else "64" if shorter_side <= 128 else "224"


def check_available(name: str, levels: str) -> None:
    """Reject a corruption that has no parameters in a level set.

    Args:
        name: A key of ``CORRUPTIONS``.
        levels: A key of ``LEVELS``, or ``auto``.

    Raises:
        InputError: If the level set is unknown or does not have the corruption.
    """
    table = LEVELS["32" if levels == "auto" else check_name(levels, LEVELS, "levels")]
    check_name(name, table, f"domains (with levels {levels!r})")


def parameters(name: str, severity: float, levels: str) -> tuple[float, ...]:
    """Look up a corruption's parameters, interpolated linearly between whole severities.

    Args:
        name: A key of ``CORRUPTIONS``.
        severity: In [1, 5].
        levels: A key of ``LEVELS``.

    Returns:
        One value per parameter of the corruption.

    Raises:
        InputError: If the level set is unknown or does not have the corruption.
    """
    check_available(name, levels)
    rows = np.asarray(LEVELS[levels][name], dtype=np.float64)
    columns = rows.reshape(5, -1).T
    return tuple(float(np.interp(severity, (1, 2, 3, 4, 5), column)) for column in columns)
