"""Errors of the command line in one line: the value, the allowed ones, the place."""

import difflib
import importlib
import inspect
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

import tta.adapters
from tta.adapters.registry import list_adapters

NOISE = re.compile(
    r"^(-\s*)?(Does not validate against any of|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>"
    r"|Expected a path but|Parser key|Value is None|usage:)"
)


def one_line(message: str, arguments: Sequence[str] = (), options: Iterable[str] = ()) -> str:
    """Say what is wrong with a command line in one line.

    Args:
        message: As jsonargparse gives it, over many lines.
        arguments: The words of the command line, to find out which class an option was meant for.
        options: Options that exist, to suggest the closest.

    Returns:
        One line.
    """
    key = ".".join(re.findall(r"Parser key \"([^\"]+)\"", message))
    if key and (found := re.search(r"Option '([^']+)' is not accepted", message)):
        return _unknown_option(key, found[1], arguments)
    if found := re.search(r"(?:dot import path string|given class_path)[: ]+'?([\w.\-/]+)'?", message):
        return _unknown_class(key, found[1], message)
    if found := re.search(r"unrecognized arguments: (\S+)", message):
        return _unknown_argument(found[1], options)
    if found := re.search(r"Expected a <class '(\w+)'>\. Got value: (.+)", message):
        return f"{key}: expected a value of type {found[1]}, got {found[2].strip()!r}"
    lines = [line.strip() for line in re.sub(r"Parser key \"[^\"]+\":\s*", "", message).splitlines()]
    told = [re.sub(r"^-\s*", "", line) for line in lines if line and not NOISE.match(line)]
    if len(told) > 1:  # a class was given where a word would do too, and it is the class that is wrong
        told = [line for line in told if "Expected a typing.Literal" not in line]
    return ": ".join(part for part in (key, "; ".join(told) or " ".join(message.split())) if part)


def _unknown_option(key: str, option: str, arguments: Sequence[str]) -> str:
    cls = class_at(arguments, key)
    if cls is None:
        return f"{key} takes no option {option!r}: see --{key}.help CLASS for those it takes"
    known = ", ".join(inspect.signature(cls).parameters)
    return f"{key}: {cls.__name__} takes no option {option!r}: choose from {known}"


def _unknown_class(key: str, name: str, message: str) -> str:
    if key.endswith("adapter"):
        names = [cls.__name__ for cls in map(tta.adapters.registry.adapter_class, list_adapters())]
        lower = {n.lower(): n for n in names}
        close = difflib.get_close_matches(name.lower(), lower, n=1)
        hint = f"; did you mean {lower[close[0]]}?" if close else ""
        return f"{key}: unknown adapter {name!r}: choose from {', '.join(names)}, or give an import path{hint}"
    if key.endswith("protocol") and "." not in name:
        words = "continual, per_domain, episodic"
        return f"{key}: unknown protocol {name!r}: choose from {words}, or give a class, such as tta.resets.Periodic"
    reason = re.search(
        r"No module named '[^']+'|cannot import name '[^']+'|module '[^']+' has no attribute '[^']+'", message
    )
    return f"{key}: unknown class {name!r} ({reason[0] if reason else 'not found'}): give an import path, package.Class"


def _unknown_argument(argument: str, options: Iterable[str]) -> str:
    name = argument.split("=")[0]
    close = difflib.get_close_matches(name, [option for option in options if option.startswith("--")], n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown option {name}: {hint}--help lists them"


def class_at(arguments: Sequence[str], key: str) -> type | None:
    """The class that a command line gives for a key, from its configuration files and flags; the last one wins.

    Args:
        arguments: Words of the command line.
        key: Dotted key, such as ``model.adapter``.

    Returns:
        The class, or ``None`` if the command line does not tell.
    """
    path = None
    for flag, value in itertools.pairwise(arguments):
        if flag in ("-c", "--config") and Path(value).is_file():
            path = _class_path(yaml.safe_load(Path(value).read_text()), key) or path
        elif flag in (f"--{key}", f"--{key}.class_path"):
            path = value
    if path is None:
        return None
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module) if module else tta.adapters, name)
    except (ImportError, AttributeError):
        return None
    return found if isinstance(found, type) else None


def _class_path(config: Any, key: str) -> str | None:  # noqa: ANN401  any YAML
    for part in key.split("."):
        if not isinstance(config, dict):
            return None
        config = config.get("init_args", config).get(part)
    if isinstance(config, dict):
        config = config.get("class_path")
    return config if isinstance(config, str) else None
