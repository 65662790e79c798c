"""What a method needs beyond the classifier, trained before the stream and kept in a file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tta.errors import InputError, first_line


def save_tensors(tensors: Mapping[str, Tensor], path: Path, about: dict[str, str] | None = None) -> None:
    """Write a ``.safetensors`` file; an interrupted write leaves an older file whole.

    Args:
        tensors: Tensors by name.
        path: Where to; the folder is made if missing.
        about: Texts that the file carries along.

    Raises:
        InputError: If it cannot be written, as on a full disk.
    """
    beside = path.with_suffix(".tmp")
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(copies, beside, metadata=about)
        beside.replace(path)
    except (SafetensorError, OSError) as error:
        beside.unlink(missing_ok=True)
        reason = first_line(error)
        raise InputError(
            f"cannot write {path} ({reason}): once it can be written, go on with --ckpt_path last"
        ) from error


@dataclass(frozen=True)
class Companion:
    """Tensors and settings of something that was trained for a method, such as a label-shift adapter.

    Attributes:
        kind: Name of the method that it was trained for.
        tensors: Its tensors by name.
        settings: What is needed to build it again: numbers, texts, and lists and mappings of them.
    """

    kind: str
    tensors: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write a ``.safetensors`` file; an interrupted write leaves an older file whole.

        Args:
            path: Where to; the folder is made if missing.

        Raises:
            InputError: If it cannot be written, as on a full disk.
        """
        save_tensors(self.tensors, Path(path), {"kind": self.kind, "settings": json.dumps(self.settings)})

    @classmethod
    def of(cls, given: "str | Path | Companion", kind: str) -> "Companion":
        """The companion itself, or the one in a file.

        Args:
            given: A companion, or the path of its file.
            kind: The method that needs it.

        Raises:
            InputError: As :meth:`load`, or if it is of another method.
        """
        if not isinstance(given, Companion):
            return cls.load(given, kind)
        if given.kind != kind:
            raise InputError(f"a companion of {given.kind}, not one of {kind}: train one with {kind}Training")
        return given

    @classmethod
    def load(cls, path: str | Path, kind: str) -> "Companion":
        """Read a file that :meth:`save` wrote; nothing in it is executed.

        Args:
            path: The file.
            kind: The method that needs it.

        Raises:
            InputError: If the file is missing, unreadable, or of another method.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(
                f"no companion of {kind} at {path.resolve()}: give the companion.safetensors that 'tta fit' wrote"
            )
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
            made_for, settings = about.get("kind"), json.loads(about.get("settings", "{}"))
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"cannot read a companion from {path}: {first_line(error)}") from error
        if made_for != kind:
            raise InputError(
                f"{path} holds {f'a companion of {made_for}' if made_for else 'plain weights'}, not one of {kind}: "
                "give the companion.safetensors that 'tta fit' wrote for it"
            )
        return cls(kind, tensors, settings)
