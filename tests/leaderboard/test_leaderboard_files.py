"""What is written: equal from equal runs, without a clock or a place, whole where runs failed, safe with odd names."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.report.test_report_pages import HOSTILE
from tta.errors import InputError
from tta.leaderboard import Entry, Leaderboard, build_leaderboard, leaderboard_wandb, write_pages

FILES = ("leaderboard.html", "leaderboard.csv", "cells.csv", "timing.csv")


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def moved(entries: list[Entry], old: Path, new: Path) -> list[Entry]:
    """The same entries of a copy of the results."""
    shutil.copytree(old / "cells", new / "cells")
    return [
        dataclasses.replace(entry, folder=None if entry.folder is None else new / entry.folder.relative_to(old))
        for entry in entries
    ]


def failing(entries: list[Entry], results: Path) -> list[Entry]:
    """The entries with one that broke, and one whose folder is lost."""
    broken = dataclasses.replace(entries[2], folder=None, error=f"OSError: {results}/disk is full\nand more")
    return [
        *entries[:2],
        broken,
        *entries[3:9],
        dataclasses.replace(entries[9], folder=results / "lost"),
        *entries[10:],
    ]


def write(entries: list[Entry], folder: Path, title: str) -> Path:
    return write_pages(build_leaderboard(entries, {"ece": False}, resamples=30), folder, title)


@pytest.fixture(scope="session")
def written(entries: list[Entry], results: Path) -> Path:
    """The folder of results with the page of a matrix of which two runs failed."""
    write(failing(entries, results), results, "Nine systems & more")
    return results


@pytest.fixture(scope="session")
def page(written: Path) -> str:
    return (written / "leaderboard.html").read_text(encoding="utf-8")


def test_equal_runs_elsewhere_and_at_another_speed_make_equal_files(
    written: Path, entries: list[Entry], tmp_path: Path
) -> None:
    copied = moved(entries, written, tmp_path)
    for summary in tmp_path.rglob("summary.json"):
        record = json.loads(summary.read_text())
        record["cost"] |= {"seconds": 99.0, "samples_per_second": 3.0, "peak_memory_mb": 1.0}
        summary.write_text(json.dumps(record))
    write(failing(copied, tmp_path), tmp_path, "Nine systems & more")
    equal = [name for name in FILES if (tmp_path / name).read_bytes() == (written / name).read_bytes()]
    assert equal == ["leaderboard.html", "leaderboard.csv", "cells.csv"]
    assert {row["seconds"] for row in rows_of(tmp_path / "timing.csv")} == {"99", ""}


def test_no_file_names_an_absolute_path(written: Path) -> None:
    for name in FILES:
        assert str(written.resolve()) not in (written / name).read_text(encoding="utf-8")


def test_csv_has_a_row_per_system_and_per_cell(written: Path) -> None:
    systems = {row["system"]: row for row in rows_of(written / "leaderboard.csv")}
    assert set(systems) == {"source", "bnstats", "tent", "sar", "views (tent)", "views (sar)"}
    tent = systems["tent"]
    assert (tent["cells"], tent["finished"], tent["gain_cells"]) == ("8", "7", "7")
    assert float(tent["accuracy_low"]) <= float(tent["accuracy"]) <= float(tent["accuracy_high"])
    assert systems["source"]["views_accuracy"] == ""
    cells = rows_of(written / "cells.csv")
    assert len(cells) == 48
    assert {row["error"] for row in cells if row["accuracy"] == ""} - {"OSError: disk is full"} == {
        "no run folder at 'lost': give the folder that `tta adapt` wrote"
    }
    assert all((written / row["run"] / "summary.json").is_file() for row in cells if not row["error"])
    assert len(rows_of(written / "timing.csv")) == 48


def test_page_tells_the_news_and_the_failures(page: str) -> None:
    text = unescape(page)
    assert "<h1>Nine systems & more</h1>" in text
    assert "views (sar) ranks first of 6 systems" in text
    assert "Against frozen views at the same cost 1 adapter is better and 2 are worse" in text
    assert "With two seeds, intervals hold half of the variance between seeds." in text
    assert "46 of 48" in text
    assert "tent on resnet / continual, seed 0: <code>OSError: disk is full</code>" in text
    assert text.count('<details class="card task"') == 4


def test_page_is_self_contained_and_its_links_lead_to_runs(page: str, written: Path) -> None:
    assert "http" not in page.replace("http-equiv", "")
    links = [unquote(link) for link in re.findall(r'<a href="([^"#]+)"', page)]
    assert len(links) == 46
    assert all((written / link).is_file() for link in links)
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_every_figure_is_told_in_words(page: str) -> None:
    words = [unescape(words) for words in re.findall(r'<svg[^>]*role="img" aria-label="([^"]+)"', page)]
    assert len(words) == page.count("<svg") == 7
    heat_map, cost, ranks, *streams = words
    assert re.search(r"Highest \+\d+\.\d \(\w+ on \w+ / \w+\), lowest .*\(tent on \w+ / label_sorted\)", heat_map)
    assert "Pareto set, cheapest first: bnstats" in cost
    assert "1 views (sar) (1 to" in ranks
    assert all("on vit" in stream for stream in streams[2:])


def test_dashes_stand_for_what_is_missing(make_cell: Callable[..., Path], tmp_path: Path) -> None:
    unlabelled = make_cell(tmp_path / "unlabelled", None, labels=False)
    entries = [Entry("tent", "net", "stream", 0, unlabelled), Entry("sar", "net", "stream", 0, None, "broke")]
    page = write_pages(build_leaderboard(entries, {}), tmp_path / "own.html", "Nothing known")
    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "own.html"
    for words in ("No run has labels", "nothing to rank", "did not record accuracy and cost", "1 failed run<"):
        assert words in text
    assert "unknown %" not in text
    assert rows_of(tmp_path / "cells.csv")[0]["accuracy"] == ""


def test_nothing_but_failures_still_makes_a_page(tmp_path: Path) -> None:
    entries = [Entry(system, "net", "stream", 0, None, "broke", system) for system in ("source", "adapter")]
    page = write(entries, tmp_path, "All failed")
    assert "No run finished" in page.read_text(encoding="utf-8")
    assert [row["error"] for row in rows_of(tmp_path / "cells.csv")] == ["broke", "broke"]


def test_hostile_names_and_errors_stay_text(make_cell: Callable[..., Path], tmp_path: Path) -> None:
    runs = [make_cell(tmp_path / f"a b&'#%{index}", 2.0, gain=0.1 * index) for index in range(2)]
    entries = [
        Entry(HOSTILE, HOSTILE, HOSTILE, 0, runs[0], family="source"),
        Entry("tent", HOSTILE, HOSTILE, 0, runs[1]),
    ]
    entries.append(Entry("sar", HOSTILE, HOSTILE, 0, None, HOSTILE))
    page = write(entries, tmp_path, HOSTILE).read_text(encoding="utf-8")
    assert "alert(" in page
    assert "<script>alert" not in page
    assert "<img" not in page
    assert 'href="a%20b%26%27%23%250/report.html"' in page


def test_output_that_cannot_be_written_is_an_error(board: Leaderboard, tmp_path: Path) -> None:
    (tmp_path / "leaderboard.csv").mkdir()
    with pytest.raises(InputError, match=r"cannot write '.*leaderboard.csv'"):
        write_pages(board, tmp_path, "title")


def test_wandb_table_holds_the_rows_of_the_csv(board: Leaderboard) -> None:
    table = leaderboard_wandb(board)
    assert table.columns[:2] == ["system", "family"]
    assert [row[0] for row in table.data] == [row.system for row in board.rows]
    accuracy = table.columns.index("accuracy")
    assert table.data[0][accuracy] == pytest.approx(board.rows[0].value("accuracy"), abs=1e-6)
