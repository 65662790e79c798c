"""Read source weights, whatever file they come in."""

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tta.errors import InputError, first_line

WRAPPERS = ("", "backbone.", "network.", "model.", "module.", "backbone.network.")
"""Prefixes that training code puts before a classifier's own keys."""


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill a classifier with weights from a file.

    Args:
        model: The classifier; every one of its keys must be in the file.
        path: A ``.safetensors`` file, a ``state_dict`` saved by ``torch.save``, or a Lightning checkpoint of this
            project. Read with ``weights_only=True``: nothing in it is executed. Keys may carry a wrapper's prefix
            (``backbone.``, ``model.``, ``module.``, ``network.``), on either side.

    Raises:
        InputError: If the file is missing or unreadable, its keys or shapes do not fit, or it has more blocks or
            experts than the model.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"no weights at {path.resolve()}: give a .safetensors, .pt or .ckpt file, such as the weights.safetensors "
            "that 'tta fit' writes"
        )
    stored = _read(path)
    # Counters of batches, which no prediction depends on, are missing in older files.
    own = [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]
    for inner in ("", "network."):
        names = {key: key.removeprefix(inner) for key in own}
        for prefix in WRAPPERS:
            if all(prefix + name in stored for name in names.values()):
                given = [key.removeprefix(prefix) for key in stored if key.startswith(prefix)]
                _refuse_more_parts(model, names.values(), given, path)
                _load(model, {key: stored[prefix + name] for key, name in names.items()}, path)
                return
    missing = sorted(key for key in own if key not in stored)
    raise InputError(
        f"{path} does not fit {type(model).__name__}: {len(missing)} of {len(own)} keys are missing, such as "
        f"{missing[0]!r}; the file has {', '.join(map(repr, list(stored)[:3]))}, ..."
    )


def _refuse_more_parts(model: nn.Module, names: Iterable[str], given: Iterable[str], path: Path) -> None:
    """Refuse a file whose numbered parts (blocks, experts) are more than the model's; other keys are left unread."""
    own = {part for name in names for part in _numbered_parts(name)}
    lists = {part.rpartition(".")[0] for part in own}
    for name in given:
        for part in _numbered_parts(name):
            if part not in own and part.rpartition(".")[0] in lists:
                raise InputError(
                    f"{path} does not fit {type(model).__name__}: it has {part!r}, one more than the model; check the "
                    "depth, the number of experts and the architecture"
                )


def _numbered_parts(name: str) -> list[str]:
    words = name.split(".")
    return [".".join(words[: place + 1]) for place, word in enumerate(words) if word.isdigit()]


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot read weights from {path}: {first_line(error)}") from error
    content = read_torch_file(path, "weights from")
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}: need a state dict, a mapping of names to tensors")
    return content


def read_torch_file(path: Path, what: str) -> Any:  # noqa: ANN401  whatever was saved
    """Content of a file that ``torch.save`` wrote: tensors and plain values. Nothing in it is run.

    Args:
        path: The file.
        what: What it should be, for the message.

    Raises:
        InputError: If it is cut short, damaged, no such file, or holds anything else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch itself does not compare check sums
                if (damaged := archive.testzip()) is not None:
                    raise InputError(f"cannot read {what} {path}: it is damaged ({damaged}): take another copy of it")
    except InputError:
        raise
    except Exception as error:  # torch raises pickle's errors, which are no common family
        raise InputError(f"cannot read {what} {path}: {_why_unreadable(error)}") from error
    return content


def _why_unreadable(error: Exception) -> str:
    if isinstance(error, UnpicklingError):
        if asked := re.search(r"GLOBAL (\S+)", str(error)):
            return f"it asks to run {asked[1]}, which was refused: only tensors and plain values are read"
        return "it is no file that torch.save wrote, or it holds more than tensors and plain values"
    if isinstance(error, EOFError) or "PytorchStreamReader" in str(error):
        return "it is cut short or damaged: take another copy of it, or an older one"
    return first_line(error)


def _load(model: nn.Module, values: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    for key in values:
        tensor = own[key]
        if values[key].shape != tensor.shape:
            raise InputError(
                f"{path} does not fit {type(model).__name__}: {key!r} has shape {tuple(values[key].shape)} in the file "
                f"and {tuple(tensor.shape)} in the model; check the class count and the architecture"
            )
    model.load_state_dict({**own, **values})
