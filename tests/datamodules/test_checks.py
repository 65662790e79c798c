import pytest

from datamodules.checks import check_at_least, check_name
from tta.errors import InputError


def test_good_values_pass_through():
    assert check_name("b", ["a", "b"], "letter") == "b"
    assert check_at_least(1, 1, "count", "give more") == 1


def test_a_bad_name_lists_the_allowed_ones():
    with pytest.raises(InputError, match=r"^letter: 'zebra' is unknown; choose one of a, b\.$"):
        check_name("zebra", ["b", "a"], "letter")


def test_a_small_number_gives_the_remedy():
    with pytest.raises(InputError, match=r"^count: 0 is too small, .* is 1; give more\.$"):
        check_at_least(0, 1, "count", "give more")
