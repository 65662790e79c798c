"""The leaderboard in a terminal."""

import io

from rich.console import Console

from tta.leaderboard import Entry, Leaderboard, build_leaderboard, leaderboard_table


def test_table_fits_eighty_columns_and_names_every_system(board: Leaderboard) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(leaderboard_table(board))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    tent = next(line.split() for line in lines if line.split()[:1] == ["tent"])
    assert tent[-1] == "8/8"
    assert "4/8" in tent
    systems = [line for line in lines if line.endswith("8/8") or line.endswith("8/8 ")]
    assert len(systems) == len(board.rows)
    assert "ranks first of 6 systems" in " ".join(lines)


def test_a_system_that_lacks_tasks_is_marked(entries: list[Entry]) -> None:
    kept = [entry for entry in entries if entry.system in ("source", "tent")]
    board = build_leaderboard([e for e in kept if e.system == "source" or e.model == "vit"], {}, resamples=5)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(leaderboard_table(board))
    assert "2 of 4 tasks" in console.export_text()
    assert "views" not in console.export_text()
