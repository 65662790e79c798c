"""The page of all methods says what the code declares."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

import tta
from tta.adapters import Facts
from tta.adapters.catalogue import BEGIN, COLUMNS, END, cells, main, table, with_table
from tta.adapters.registry import adapter_class

PAGE = Path(__file__).parent.parent.parent / "docs" / "adapters.md"

CHANGED = {
    "needs_gradients": True,
    "smallest_batch": 3,
    "needs_batch_norm": True,
    "needs_source_data": True,
    "needs_source_labels": True,
    "needs_target_data": True,
    "needs_companion": True,
    "predicts_after": True,
    "smallest_domain": 7,
    "forwards": 4,
    "backwards": 4,
    "changes_statistics": True,
    "augments": True,
    "one_process": True,
    "trains": "the head",
    "paper": "https://arxiv.org/abs/1234.56789",
}
"""Another value for each declared fact that the table promises to show."""


def names_in(pattern: str) -> list[str]:
    return sorted(re.findall(pattern, PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE))


EXPORTED = sorted(adapter_class(name).__name__ for name in tta.list_adapters())


def test_the_page_is_as_the_code_says_now():
    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page) == page, "run: python -m tta.adapters.catalogue docs/adapters.md"


def test_every_method_has_a_row_and_a_section():
    assert sorted(re.findall(r"^\| \[(\w+)\]", table(), flags=re.MULTILINE)) == EXPORTED
    assert [name for name in names_in(r"^### (\w+)$") if name in EXPORTED] == EXPORTED


@pytest.mark.parametrize("fact", CHANGED)
def test_every_promised_fact_changes_its_row(fact):
    assert cells(replace(Facts(), **{fact: CHANGED[fact]})) != cells(Facts())


def test_cells_of_a_method_by_hand():
    facts = Facts(
        needs_gradients=True,
        needs_source_data=True,
        needs_companion=True,
        smallest_domain=64,
        forwards=3,
        backwards=1,
        trains="the head",
        paper="https://arxiv.org/abs/1234.56789",
    )
    assert cells(facts) == [
        "[1234.56789](https://arxiv.org/abs/1234.56789)",
        "the head",
        "source images, parts trained for it",
        "1; learns from 64 images on",
        "3 + 1",
        "before the update",
        "-",
        "-",
        "-",
        "several",
    ]
    assert len(cells(facts)) == len(COLUMNS)


def test_a_method_around_another_one_says_what_it_adds():
    facts = Facts(forwards=3, needs_source_labels=True, one_process=True)
    row = dict(zip(COLUMNS, cells(facts, wraps=True), strict=True))
    assert row["forwards + backwards per sample, at most"] == "as the inner method, + 2 forwards"
    assert row["needs before the stream"] == "labelled source images"
    assert row["logits from"] == "as the inner method"
    assert row["processes"] == "one"


@pytest.mark.parametrize("name", [name for name in tta.list_adapters() if name != "source"])
def test_every_method_names_its_paper(name):
    assert adapter_class(name).facts.paper.startswith("https://")


@pytest.mark.parametrize("name", [n for n in tta.list_adapters() if n not in ("guard", "itta", "labelshift")])
def test_a_class_declares_what_its_defaults_make_of_it(name):
    """The table reads classes; arguments change the facts of an instance."""
    assert adapter_class(name)().facts == adapter_class(name).facts


def test_the_page_names_the_methods_that_refuse_one_value_per_channel(build):
    def normalises_by_the_batch(name: str) -> bool:
        return any(isinstance(m, nn.BatchNorm2d) and m.training for m in build(name, "bn").model.modules())

    sentence = re.search(r"batch statistics \(([^)]*)\)", PAGE.read_text(encoding="utf-8"))
    own = [name for name in tta.list_adapters() if name not in ("guard", "labelshift")]
    expected = sorted(adapter_class(name).__name__ for name in own if normalises_by_the_batch(name))
    assert sorted(re.split(r",\s+", sentence[1])) == expected


def test_the_command_rewrites_the_block_alone(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    assert main([str(page)]) == 0
    assert page.read_text() == f"# Before\n\n{BEGIN}\n{table()}\n{END}\n\nafter\n"
    first = page.read_text()
    assert main([str(page)]) == 0
    assert page.read_text() == first
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ["nothing", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n", f"{BEGIN}\n"])
def test_a_page_without_both_markers_is_left_alone(tmp_path, capsys, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    assert main([str(page)]) == 2
    assert page.read_text() == text
    assert "the page needs the lines" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["no/such/page.md"], ["a", "b"]])
def test_a_wrong_call_is_told(capsys, arguments):
    assert main(arguments) == 2
    assert "give one Markdown file, such as docs/adapters.md" in capsys.readouterr().err
