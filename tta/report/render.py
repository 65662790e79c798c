"""Templates and records to files: what the pages share."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from tta.errors import InputError
from tta.report.style import WIDE
from tta.report.svg import to_svg


@dataclass(frozen=True)
class Card:
    """A figure on a page.

    Attributes:
        svg: The drawing.
        caption: One sentence below it, may be empty.
        wide: Whether it takes the whole width of the page.
    """

    svg: Markup
    caption: str
    wide: bool


@dataclass(frozen=True)
class Tile:
    """One headline number; `tone` is `good`, `neutral`, `warning` or `bad`."""

    label: str
    value: str
    detail: str = ""
    tone: str = "neutral"


def make_card(figure: Figure, name: str, alt: str, caption: str = "") -> Card:
    """Render a figure for a page; `name` is unique on that page, `alt` says in words what is shown."""
    return Card(to_svg(figure, name, alt), caption, bool(figure.get_figwidth() >= WIDE))


def render(template: str, **context: object) -> str:
    """Fill a template of this folder, escaping every value that is not markup already."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**context)


def write_atomically(file: Path, text: str) -> Path:
    """Write a file so that a reader sees the old one or the whole new one.

    Raises:
        InputError: The folder cannot be written to.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8", errors="replace")
        os.replace(draft, file)
    except OSError as error:
        with suppress(OSError):  # its folder may be a file
            draft.unlink(missing_ok=True)
        raise InputError(f"cannot write '{file}' ({error.strerror}): choose a folder that can be written to") from error
    return file


def relative(path: Path, folder: Path) -> str:
    """A path as seen from a folder, with forward slashes."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def to_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Records of equal keys as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
