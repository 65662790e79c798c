"""Files that a crash cannot spoil."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tta.callbacks import AppendFile
from tta.errors import InputError

ROWS = st.lists(st.tuples(st.integers(), st.text(alphabet='ab,"\n é', max_size=5)), max_size=5)


@given(kept=ROWS, lost=ROWS, new=ROWS)
def test_cut_back_and_appended_equals_never_interrupted(
    kept: list[tuple[int, str]],
    lost: list[tuple[int, str]],
    new: list[tuple[int, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("append") / "rows.csv"
    file = AppendFile(path, ("number", "text"))
    file.append(kept)
    offset = file.offset
    file.append(lost)
    again = AppendFile(path, ("number", "text"))
    again.cut_back(offset)
    again.append(new)
    with path.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.reader(opened))
    assert rows == [["number", "text"], *([str(number), text] for number, text in [*kept, *new])]


def test_rows_are_on_disk_at_once(tmp_path: Path) -> None:
    file = AppendFile(tmp_path / "new" / "rows.csv", ("a",))
    file.append([[1]])
    assert file.path.read_text() == "a\n1\n"


def test_a_file_shorter_than_its_checkpoint_is_refused(tmp_path: Path) -> None:
    file = AppendFile(tmp_path / "rows.csv", ("a",))
    file.append([[1]])
    with pytest.raises(InputError, match="has 4 bytes and the checkpoint saw 9"):
        file.cut_back(9)


def test_a_new_run_starts_its_file_afresh(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("left over\nfrom before\n" * 9)
    AppendFile(tmp_path / "rows.csv", ("a",)).append([[1]])
    assert (tmp_path / "rows.csv").read_text() == "a\n1\n"
