"""The pages: whole, self-contained, escaped, atomic."""

import csv
import io
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tta.errors import InputError
from tta.report import comparison_table, read_run, write_comparison, write_report
from tta.report.compare import comparison_rows
from tta.report.render import write_atomically
from tta.report.verdict import write_verdict

HOSTILE = "</pre><script>alert('x')</script><img src=http://evil.test/a onerror=alert(1)> $\\frac{ & \"'"


class _References(HTMLParser):
    """Collects what a browser would follow or fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.found.append(value or "")
            if name in ("style", "clip-path", "fill", "filter", "mask"):
                self.handle_data(value or "")

    def handle_data(self, data: str) -> None:
        self.found += re.findall(r"url\(\s*['\"]?([^'\")]*)", data)
        assert "@import" not in data


def _references(page: str) -> list[str]:
    return _References(page).found


@pytest.fixture(scope="session")
def pages(folders: dict[str, Path]) -> dict[str, str]:
    names = ("healthy", "unlabelled", "one_batch")
    return {name: write_report(folders[name]).read_text(encoding="utf-8") for name in names}


@pytest.fixture(scope="session")
def hostile(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(
        tmp_path_factory.mktemp("hostile") / "a b&'#%",
        adapter=HOSTILE,
        stream=HOSTILE,
        config=HOSTILE,
        domains=(HOSTILE, f"2{HOSTILE}"),
        class_names=[HOSTILE] * 10,
        samples=256,
        flagged=7,
        summary={"accuracy_paired": 0.5, "skipped_steps": 2, "notes": ["sample 64: gives up"]},
    )


@pytest.fixture(scope="session")
def hostile_report(hostile: Path) -> str:
    return write_report(hostile).read_text(encoding="utf-8")


@pytest.mark.parametrize("case", ["healthy", "unlabelled", "one_batch"])
def test_report_holds_the_verdict_and_no_outside_reference(
    pages: dict[str, str], folders: dict[str, Path], case: str
) -> None:
    page = pages[case]
    text = unescape(page).replace("\N{NO-BREAK SPACE}", " ")
    assert write_verdict(read_run(folders[case])).sentence in text
    assert "http://" not in page
    assert "https://" not in page
    assert all(reference.startswith(("#", "data:")) for reference in _references(page))
    assert "tta.adapters.SAR" in page


def test_each_figure_has_an_alternative_text(pages: dict[str, str]) -> None:
    tags = re.findall(r"<svg[^>]*>", pages["healthy"])
    assert len(tags) == 16
    assert all(re.search(r'role="img" aria-label="[^"]{20,}"', tag) for tag in tags)


def test_ids_are_unique(pages: dict[str, str]) -> None:
    ids = re.findall(r'\sid="([^"]+)"', pages["healthy"])
    assert len(ids) == len(set(ids))


def test_missing_parts_are_explained(pages: dict[str, str]) -> None:
    assert "no labels, so no accuracy per domain" in pages["unlabelled"]
    assert "no labels to calibrate against" in pages["unlabelled"]


def test_partial_source_and_broken_images_are_noted(hostile_report: str) -> None:
    assert "7 samples held non-finite pixels" in hostile_report
    assert "2 optimiser steps were skipped" in hostile_report
    assert "ran on a part of the samples" in hostile_report


def test_what_the_method_has_to_tell_is_on_the_page(hostile_report: str) -> None:
    assert ", sample 64: gives up." in hostile_report


def test_empty_summary_still_makes_a_page(make_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", samples=128)
    (folder / "summary.json").write_text("{}")
    assert "unknown" in write_report(folder).read_text(encoding="utf-8")
    assert write_comparison([folder], tmp_path / "out").is_file()


def test_hostile_names_and_config_stay_text(hostile: Path, hostile_report: str, tmp_path: Path) -> None:
    comparison = write_comparison([hostile], tmp_path).read_text(encoding="utf-8")
    for page in (hostile_report, comparison):
        assert "alert(" in page
        assert "<script>alert" not in page
        assert "<img" not in page
        assert all(not reference.startswith("http") for reference in _references(page))


def test_report_replaces_the_old_page_and_leaves_no_draft(folders: dict[str, Path], pages: dict[str, str]) -> None:
    folder = folders["one_batch"]
    (folder / "report.html").write_text("old")
    assert write_report(folder).read_text(encoding="utf-8") == pages["one_batch"]
    assert not list(folder.glob(".*.tmp"))


def test_failed_write_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "report.html"
    page.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tta.report.render.os.replace", fail)
    with pytest.raises(InputError, match=r"cannot write '.*report.html' \(No space left"):
        write_atomically(page, "new")
    assert page.read_text() == "old"
    assert list(tmp_path.iterdir()) == [page]


@pytest.fixture(scope="session")
def compared(folders: dict[str, Path]) -> list[Path]:
    return [folders[name] for name in ("healthy", "unlabelled", "gradient_free", "collapsing")]


def test_comparison_groups_links_and_writes_csv(compared: list[Path], pages: dict[str, str], tmp_path: Path) -> None:
    assert pages
    page = write_comparison([*compared, compared[0]], tmp_path / "out")
    assert page == tmp_path / "out" / "comparison.html"
    text = page.read_text(encoding="utf-8")
    assert text.count('class="group"') == 2
    assert "DigitsStream, shuffled" in text
    assert "http" not in text.replace("http-equiv", "")
    links = re.findall(r'<a href="([^"]+)"', text)
    assert len(links) >= 2
    assert all((page.parent / link).is_file() for link in links)
    with (page.parent / "comparison.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["adapter"] for row in rows] == ["SAR (healthy)", "SAR (unlabelled)", "BNStats", "Tent"]
    assert [row["collapsed"] for row in rows] == ["False", "False", "False", "True"]
    assert rows[1]["accuracy"] == ""


def test_link_to_a_folder_with_odd_characters_is_quoted(hostile: Path, hostile_report: str) -> None:
    assert hostile_report
    page = write_comparison([hostile], hostile.parent / "page.html")
    assert page.name == "page.html"
    assert 'href="a%20b%26%27%23%25/report.html"' in page.read_text(encoding="utf-8")


def test_runs_over_different_streams_are_flagged(make_run: Callable[..., Path], tmp_path: Path) -> None:
    folders = [make_run(tmp_path / str(samples), samples=samples) for samples in (128, 256)]
    page = write_comparison(folders, tmp_path).read_text(encoding="utf-8")
    assert "not comparable one to one" in page
    assert "SAR (128)" in page


def test_runs_of_one_adapter_are_told_apart(make_run: Callable[..., Path], tmp_path: Path) -> None:
    def labels(*options: dict[str, Any]) -> list[str]:
        runs = [read_run(make_run(tmp_path / str(i) / "run", samples=64, **o)) for i, o in enumerate(options)]
        return [row["adapter"] for row in comparison_rows(runs)]

    assert labels({"seed": 0}, {"seed": 1}) == ["SAR (seed 0)", "SAR (seed 1)"]
    episodic = {"summary": {"protocol": "episodic"}}
    assert labels({}, episodic, {"adapter": "Tent"}) == ["SAR (continual)", "SAR (episodic)", "Tent"]
    assert labels({}, {}) == [f"SAR ({tmp_path / str(i) / 'run'})" for i in range(2)]


def test_rows_are_in_natural_units(compared: list[Path]) -> None:
    row = comparison_rows([read_run(folder) for folder in compared])[0]
    assert 0 < row["accuracy"] < 1
    assert row["gain"] == pytest.approx(row["accuracy"] - row["source_accuracy"])
    assert row["forwards_per_sample"] == 2
    assert row["forward_equivalents_per_sample"] == 3.9


def test_terminal_table_takes_names_literally(hostile: Path, compared: list[Path]) -> None:
    console = Console(width=220, record=True, file=io.StringIO())
    console.print(comparison_table([read_run(folder) for folder in [*compared, hostile]]))
    text = console.export_text()
    assert "collapsed after" in text
    assert "below source at" in text
    assert "SAR (unlabelled)" in text
    assert "unknown" in text


def test_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder given"):
        write_comparison([], tmp_path)


def test_an_output_below_a_file_is_said_in_one_line(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(InputError, match=r"cannot write '.*comparison\.csv' \(.*\): choose a folder"):
        write_comparison([folders["collapsing"]], tmp_path / "file.txt" / "page.html")
