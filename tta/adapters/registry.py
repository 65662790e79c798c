"""Find adapters by name."""

import difflib
import fnmatch

import tta.adapters
from tta.adapters.base import Adapter
from tta.errors import InputError


def _classes() -> dict[str, type[Adapter]]:
    exported = (getattr(tta.adapters, name) for name in tta.adapters.__all__)
    return {
        item.__name__.lower(): item
        for item in exported
        if isinstance(item, type) and issubclass(item, Adapter) and item is not Adapter
    }


def list_adapters(pattern: str = "*") -> list[str]:
    """Names of the available methods, for :func:`tta.online` and the tests.

    Args:
        pattern: Shell-style wildcard, case-insensitive, such as ``"s*"``.

    Returns:
        Sorted lower-case names.
    """
    return sorted(fnmatch.filter(_classes(), pattern.lower()))


def adapter_class(name: str) -> type[Adapter]:
    """The class behind a name; case, hyphens and underscores do not matter.

    Raises:
        InputError: For an unknown name, with the closest ones.
    """
    classes = _classes()
    key = name.lower().replace("_", "").replace("-", "")
    if key in classes:
        return classes[key]
    close = difflib.get_close_matches(key, classes, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise InputError(f"unknown adapter {name!r}: choose from {', '.join(sorted(classes))}{hint}")
