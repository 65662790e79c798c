import os
import pickle
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from datamodules.path_table import PathTable

NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(st.lists(st.lists(NAMES, max_size=5), min_size=1, max_size=4))
def test_paths_come_back_as_they_were_given(groups):
    folders = [f"root/class{number}" for number in range(len(groups))]
    table = PathTable(folders, groups)
    expected = [os.path.join(folder, name) for folder, names in zip(folders, groups, strict=True) for name in names]
    assert [table[index] for index in range(len(table))] == expected
    assert table.folder.tolist() == [number for number, names in enumerate(groups) for _ in names]
    copy = pickle.loads(pickle.dumps(table))
    assert [copy[index] for index in range(len(copy))] == expected


def test_names_that_are_no_unicode_survive():
    name = os.fsdecode(b"caf\xe9.jpg")
    assert PathTable(["root"], [[name]])[0] == os.path.join("root", name)


def test_only_chosen_files_stay():
    table = PathTable(["a", "b"], [["0", "1"], ["2", "3"]])
    table.keep(np.array([1, 2]))
    assert len(table) == 2
    assert [table[0], table[1]] == [os.path.join("a", "1"), os.path.join("b", "2")]
    assert table.folder.tolist() == [0, 1]


def test_a_file_costs_a_few_dozen_bytes():
    count, names = 20_000, 100
    groups = ((f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(count // names)) for _ in range(names))
    size = len(pickle.dumps(PathTable([f"n{number:08d}" for number in range(names)], groups)))
    assert size < 48 * count
    assert size < sum(sys.getsizeof(f"ILSVRC2012_val_{number:08d}.JPEG") for number in range(count))
