"""Checks of what a user can get wrong, each ending in one line that says how to put it right."""

import difflib
from collections.abc import Iterable, Sequence

from tta.errors import InputError


def check_name(value: str, allowed: Iterable[str], argument: str) -> str:
    """Return ``value`` if it is one of ``allowed``.

    Args:
        value: The name that was given.
        allowed: Every name that may be given.
        argument: The place, such as ``order`` or ``domains``, for the message.

    Returns:
        ``value``, unchanged.

    Raises:
        InputError: If the name is unknown; the message lists the allowed ones and the closest of them.
    """
    names = sorted(allowed)
    if value in names:
        return value
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InputError(f"{argument}: {value!r} is unknown; choose one of {', '.join(names)}.{hint}")


def check_at_least(value: int, least: int, argument: str, remedy: str) -> int:
    """Return ``value`` if it is not below ``least``.

    Args:
        value: The number that was given.
        least: The smallest one allowed.
        argument: The place, for the message.
        remedy: A short advice, without a full stop.

    Returns:
        ``value``, unchanged.

    Raises:
        InputError: If ``value < least``.
    """
    if value < least:
        raise InputError(f"{argument}: {value} is too small, the smallest allowed value is {least}; {remedy}.")
    return value


def check_distinct(names: Sequence[str], argument: str, remedy: str) -> None:
    """Refuse an empty list, and one that has a name twice.

    Args:
        names: What was given.
        argument: The place, for the message.
        remedy: How to tell two apart, without a full stop.

    Raises:
        InputError: If there is no name, or one of them comes twice.
    """
    if not names:
        raise InputError(f"{argument}: the list is empty; name at least one.")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{argument}: {name!r} is given twice; {remedy}.")
