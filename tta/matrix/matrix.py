"""What a matrix file says."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tta.errors import InputError
from tta.leaderboard import check_metric_names

SOURCE = "source"
"""Name of the system that is the frozen source model."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
PART = ("config", "options")
KEYS = ("title", *PART, "models", "adapters", "streams", "seeds", "exclude", "frozen_views", "metrics")
AXES = ("model", "adapter", "stream", "seed")


@dataclass(frozen=True)
class Part:
    """What one value of an axis adds to the command line of its cells.

    Attributes:
        name: Its name, also a folder's.
        config: Configuration files, as after ``--config``.
        options: Words that come after all configuration files.
    """

    name: str
    config: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def config_words(self) -> list[str]:
        """The configuration files with their flags."""
        return [word for file in self.config for word in ("--config", file)]


@dataclass(frozen=True)
class Model(Part):
    """A source model.

    Attributes:
        fit: What ``tta fit`` is called with to train it, once for all cells; ``None`` where it has weights already.
    """

    fit: Part | None = None


@dataclass(frozen=True)
class Matrix:
    """A matrix of runs.

    Attributes:
        title: What the page is called.
        common: What every cell has.
        models: Source models.
        adapters: Adaptation methods; one named ``source`` is the frozen source model.
        streams: Streams.
        seeds: Seeds of the stream's order and of everything drawn in a run.
        exclude: Cells that are left out: allowed values by axis.
        views: What frozen models that average augmented views have; its name is not used.
        viewed: Adapters that get such a model at the cost of theirs.
        metrics: Further figures of ``summary.json`` to rank by, and whether higher is better.
    """

    title: str
    common: Part
    models: tuple[Model, ...]
    adapters: tuple[Part, ...]
    streams: tuple[Part, ...]
    seeds: tuple[int, ...]
    exclude: tuple[Mapping[str, tuple[str, ...]], ...]
    views: Part
    viewed: tuple[str, ...]
    metrics: Mapping[str, bool]

    @property
    def source(self) -> Part:
        """The frozen source model."""
        return next(adapter for adapter in self.adapters if adapter.name == SOURCE)


@cache
def has_own_network(adapter: Part) -> bool:
    """Whether an adapter brings a network or weights of its own, so that the model's predictions say nothing of it."""
    own = ("backbone", "weights")
    if any(option.startswith(tuple(f"--model.{name}" for name in own)) for option in adapter.options):
        return True
    return any(
        OmegaConf.select(OmegaConf.load(file), f"model.{name}") is not None for file in adapter.config for name in own
    )


def read_matrix(file: str | Path) -> Matrix:
    """Read a matrix file.

    Args:
        file: YAML with the axes ``models``, ``adapters``, ``streams`` (a mapping of names to parts: a configuration
            file, a list of them, or ``config`` and ``options``) and ``seeds``; and, all optional: ``title``; ``config``
            and ``options`` of every cell; ``exclude``, a list of axes and values; ``frozen_views``, for which adapters
            a frozen model is run at equal cost (all by default); ``metrics`` to rank by, ``max`` or ``min``.

    Returns:
        The matrix, of which names and files are checked; options are when a cell runs.

    Raises:
        InputError: If the file cannot be read, or something in it cannot be used.
    """
    path = Path(file)
    told = _load(path)
    _check_keys(told, KEYS, str(path))
    models = tuple(_model(name, value, f"{path}: models.{name}") for name, value in _axis(told, "models", path))
    adapters = tuple(_part(name, value, f"{path}: adapters.{name}") for name, value in _axis(told, "adapters", path))
    streams = tuple(_part(name, value, f"{path}: streams.{name}") for name, value in _axis(told, "streams", path))
    adapters = _with_source(adapters)
    views, viewed = _views(told.get("frozen_views"), [adapter.name for adapter in adapters], path)
    return Matrix(
        title=str(told.get("title") or path.stem),
        common=_part("common", {key: told[key] for key in PART if key in told}, str(path)),
        models=models,
        adapters=adapters,
        streams=streams,
        seeds=_seeds(told.get("seeds", [0]), path),
        exclude=tuple(_exclusion(entry, path) for entry in _listed(told.get("exclude", []))),
        views=views,
        viewed=viewed,
        metrics=_metrics(told.get("metrics", {}), path),
    )


def _with_source(adapters: tuple[Part, ...]) -> tuple[Part, ...]:
    if all(adapter.name != SOURCE for adapter in adapters):
        adapters = (Part(SOURCE), *adapters)
    frozen = ("--model.adapter", "tta.adapters.Source")
    return tuple(
        replace(adapter, options=(*frozen, *adapter.options)) if adapter.name == SOURCE else adapter
        for adapter in adapters
    )


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"no matrix file at {path.resolve()}: give a YAML file with models, adapters, streams, seeds")
    try:
        told = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(told, dict):
        raise InputError(f"{path} holds a {type(told).__name__}: a matrix is a mapping with {', '.join(KEYS)}")
    return {str(key): value for key, value in told.items()}


def _check_keys(told: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    if unknown := [key for key in told if key not in known]:
        raise InputError(f"{place}: unknown key {unknown[0]!r}: choose from {', '.join(known)}")


def _axis(told: dict[str, Any], axis: str, path: Path) -> list[tuple[str, Any]]:
    values = told.get(axis)
    if not isinstance(values, dict) or not values:
        raise InputError(f"{path}: {axis} is {values!r}: give at least one, as a name with what it stands for")
    names = [str(name) for name in values]
    for name in names:
        if not NAME.fullmatch(name):
            raise InputError(f"{path}: {axis}: {name!r} cannot be a folder's name: use letters, digits, '.', '_', '-'")
    lower = [name.lower() for name in names]
    if twice := [name for name in names if lower.count(name.lower()) > 1]:
        raise InputError(f"{path}: {axis}: {' and '.join(twice)} differ in capitals alone: name them differently")
    return list(zip(names, values.values(), strict=True))


def _part(name: str, value: Any, place: str) -> Part:  # noqa: ANN401  any YAML
    if value is None or isinstance(value, str | list):
        value = {"config": _listed(value)}
    if not isinstance(value, dict):
        raise InputError(f"{place}: {value!r} is no part: give a configuration file, or config and options")
    _check_keys(value, PART, place)
    config = tuple(str(file) for file in _listed(value.get("config")))
    for file in config:
        if not Path(file).is_file():
            raise InputError(f"{place}: no configuration file {file} in {Path.cwd()}")
    options = value.get("options") or {}
    if not isinstance(options, dict):
        raise InputError(f"{place}: options are {options!r}: give names with values, such as data.batch_size: 64")
    words = [word for option, setting in options.items() for word in (f"--{option}", _word(setting))]
    return Part(name, config, tuple(words))


def _model(name: str, value: Any, place: str) -> Model:  # noqa: ANN401  any YAML
    if not isinstance(value, dict) or "fit" not in value:
        part = _part(name, value, place)
        return Model(part.name, part.config, part.options)
    part = _part(name, {key: inner for key, inner in value.items() if key != "fit"}, place)
    return Model(part.name, part.config, part.options, _part("fit", value["fit"], f"{place}.fit"))


def _word(value: Any) -> str:  # noqa: ANN401  any YAML
    return value if isinstance(value, str) else json.dumps(value)


def _listed(value: Any) -> list[Any]:  # noqa: ANN401  any YAML
    return value if isinstance(value, list) else [] if value is None else [value]


def _seeds(value: Any, path: Path) -> tuple[int, ...]:  # noqa: ANN401  any YAML
    seeds = _listed(value)
    if not seeds or not all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds):
        raise InputError(f"{path}: seeds are {value!r}: give at least one whole number of 0 or more")
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise InputError(f"{path}: seed {twice[0]} stands there twice: every cell runs once")
    return tuple(seeds)


def _exclusion(entry: Any, path: Path) -> dict[str, tuple[str, ...]]:  # noqa: ANN401  any YAML
    if not isinstance(entry, dict) or not entry:
        raise InputError(f"{path}: exclude: {entry!r}: give axes with values, such as {{adapter: bnstats, model: vit}}")
    _check_keys(entry, AXES, f"{path}: exclude")
    return {axis: tuple(str(value) for value in _listed(values)) for axis, values in entry.items()}


def _views(value: Any, adapters: list[str], path: Path) -> tuple[Part, tuple[str, ...]]:  # noqa: ANN401  any YAML
    told = dict(value) if isinstance(value, dict) else {"adapters": value}
    of = told.pop("adapters", None)
    of = True if of is None else of
    others = [name for name in adapters if name != SOURCE]
    names = [str(name) for name in ((others if of else []) if isinstance(of, bool) else _listed(of))]
    if unknown := [name for name in names if name not in others]:
        raise InputError(
            f"{path}: frozen_views: no adapter {unknown[0]!r}: choose from {', '.join(others)}, or true or false"
        )
    return _part("views", told, f"{path}: frozen_views"), tuple(names)


def _metrics(value: Any, path: Path) -> dict[str, bool]:  # noqa: ANN401  any YAML
    if not isinstance(value, dict) or any(better not in ("max", "min") for better in value.values()):
        raise InputError(f"{path}: metrics are {value!r}: give names of summary.json with max or min, such as ece: min")
    check_metric_names(map(str, value))
    return {str(name): better == "max" for name, better in value.items()}
