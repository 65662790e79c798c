"""The leaderboard for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tta.leaderboard.board import Leaderboard, Row
from tta.leaderboard.columns import COLUMNS, VIEWS, interval_of, text_of
from tta.leaderboard.headline import headline

SHOWN = {
    "accuracy": "Accuracy",
    "gain": "vs source",
    "kemeny_rank": "Rank",
    "collapsed": "Collapsed",
    "forward_equivalents": "Cost",
    "views_difference": "vs views",
}
INTERVALS = ("accuracy", "kemeny_rank")
WIDEST_NAME = 20
MOST_DISAGREEMENTS = 3


def leaderboard_table(board: Leaderboard) -> Group:
    """One line per system, best first, and what the ranking says below; 80 columns wide."""
    shown = {key: title for key, title in SHOWN.items() if board.has_views or key not in VIEWS}
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("System", overflow="fold", max_width=WIDEST_NAME)
    for title in (*shown.values(), "Runs"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in board.rows:
        runs = f"{row.finished}/{len(row.cells)}"
        name = "\n".join(filter(None, (row.system, board.coverage(row))))
        table.add_row(*(Text(text) for text in (name, *_texts(row, shown), runs)))
    return Group(table, *(Text(sentence) for sentence in _sentences(board)))


def _sentences(board: Leaderboard) -> list[str]:
    words = headline(board)
    further = len(words.disagreements) - MOST_DISAGREEMENTS
    more = [f"{further} more such pairs are on the page."] if further > 0 else []
    return [*words.sentences, *words.disagreements[:MOST_DISAGREEMENTS], *more]


def _texts(row: Row, shown: Iterable[str]) -> list[str]:
    columns = {column.key: column for column in COLUMNS}
    texts = []
    for key in shown:
        text = text_of(columns[key], row.quantities[key]).removesuffix(" %").replace(" of ", "/")
        interval = interval_of(columns[key], row.quantities[key]) if key in INTERVALS else ""
        texts.append(f"{text} ({interval})" if interval else text)
    return texts
