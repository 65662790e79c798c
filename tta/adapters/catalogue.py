"""The table of all methods in the documentation, drawn from what their classes declare.

``python -m tta.adapters.catalogue docs/adapters.md`` writes it between the two markers of the page.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tta.adapters.base import Adapter, Facts
from tta.adapters.registry import adapter_class, list_adapters
from tta.errors import InputError

BEGIN = "<!-- methods: written by python -m tta.adapters.catalogue docs/adapters.md -->"
END = "<!-- end of methods -->"

INNER = "as the inner method"
"""What a method around another one says where the other one decides."""

PASSES = "forwards + backwards per sample, at most"

COLUMNS: dict[str, Callable[[Facts], str]] = {
    "paper": lambda facts: _link(facts.paper),
    "trains": lambda facts: facts.trains,
    "needs before the stream": lambda facts: _needs(facts),
    "smallest batch": lambda facts: _smallest(facts),
    PASSES: lambda facts: f"{facts.forwards} + {facts.backwards}",
    "logits from": lambda facts: _timing(facts),
    "BatchNorm": lambda facts: "needed" if facts.needs_batch_norm else "-",
    "running statistics": lambda facts: "moved" if facts.changes_statistics else "-",
    "random views": lambda facts: "of images in [0, 1]" if facts.augments else "-",
    "processes": lambda facts: _processes(facts),
}
"""Columns after the name, and what each says of declared facts."""

LEFT_TO_INNER = ("smallest batch", "logits from", "BatchNorm", "running statistics", "random views", "processes")
"""Columns in which a method around another one has nothing to say unless it declares something itself."""


def cells(facts: Facts, wraps: bool = False) -> list[str]:
    """One method's row, without its name.

    Args:
        facts: What the method declares.
        wraps: Whether it works around another method, which then decides on passes, timing and the rest.

    Returns:
        A cell for each of ``COLUMNS``.
    """
    row = {title: cell(facts) for title, cell in COLUMNS.items()}
    if wraps:
        nothing = Facts()
        row |= {title: INNER for title in LEFT_TO_INNER if row[title] == COLUMNS[title](nothing)}
        more = facts.forwards - nothing.forwards
        row[PASSES] = f"{INNER}, + {more} forwards" if more else INNER
    return list(row.values())


def table() -> str:
    """All methods of :func:`tta.list_adapters` as a Markdown table; names link to headings of the same page."""
    titles = ["method", *COLUMNS]
    lines = [titles, ["---"] * len(titles)]
    for name in list_adapters():
        cls = adapter_class(name)
        lines.append([f"[{cls.__name__}](#{name})", *cells(cls.facts, _wraps(cls))])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def with_table(page: str) -> str:
    """A page with the table as it is now between the markers.

    Raises:
        InputError: If the page does not have both markers once, in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in before + after:
        raise InputError(f"the page needs the lines {BEGIN!r} and {END!r}, once each and in this order")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main(arguments: Sequence[str]) -> int:
    """Rewrite the table of a page.

    Args:
        arguments: The page's path alone.

    Returns:
        Exit status: 2 for a wrong call or page, with one line on the standard error.
    """
    try:
        if len(arguments) != 1 or not Path(arguments[0]).is_file():
            raise InputError(
                f"{' '.join(arguments) or 'no argument'}: give one Markdown file, such as docs/adapters.md"
            )
        page = Path(arguments[0])
        page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _wraps(cls: type[Adapter]) -> bool:
    return "adapter" in inspect.signature(cls).parameters


def _link(address: str) -> str:
    if not address:
        return "-"
    return f"[{address.rsplit('/', 1)[-1] if 'arxiv.org' in address else 'OpenReview'}]({address})"


def _needs(facts: Facts) -> str:
    wanted = {
        "source images": facts.needs_source_data,
        "labelled source images": facts.needs_source_labels,
        "the whole stream": facts.needs_target_data,
        "parts trained for it": facts.needs_companion,
    }
    return ", ".join(what for what, needed in wanted.items() if needed) or "nothing"


def _smallest(facts: Facts) -> str:
    smallest = str(max(1, facts.smallest_batch))
    learns = facts.smallest_domain
    return f"{smallest}; learns from {learns} images on" if learns > facts.smallest_batch else smallest


def _timing(facts: Facts) -> str:
    if facts.predicts_after:
        return "after the update"
    return "before the update" if facts.needs_gradients else "no update"


def _processes(facts: Facts) -> str:
    if facts.one_process:
        return "one"
    return "several" if facts.needs_gradients else "one: nothing to share"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
