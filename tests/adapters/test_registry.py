import inspect

import pytest

import tta
import tta.adapters
from tta.adapters import SAR, Adapter, BNStats
from tta.adapters.registry import adapter_class


def test_every_exported_method_is_listed_and_nothing_else():
    exported = [getattr(tta.adapters, name) for name in tta.adapters.__all__]
    methods = {cls for cls in exported if inspect.isclass(cls) and issubclass(cls, Adapter) and cls is not Adapter}
    assert {adapter_class(name) for name in tta.list_adapters()} == methods
    assert len(tta.list_adapters()) == len(methods) >= 23
    assert not any(inspect.isabstract(cls) for cls in methods)


def test_wildcards():
    assert tta.list_adapters("s*") == ["sade", "sar", "shot", "source"]
    assert tta.list_adapters("S?R") == ["sar"]
    assert tta.list_adapters("nothing*") == []
    assert tta.list_adapters() == sorted(tta.list_adapters())


@pytest.mark.parametrize("name", ["bnstats", "BNStats", "bn_stats", "bn-stats", "BN_STATS"])
def test_case_hyphens_and_underscores_do_not_matter(name):
    assert adapter_class(name) is BNStats


def test_unknown_name_lists_what_there_is_and_the_closest():
    with pytest.raises(tta.InputError, match=r"unknown adapter 'sarr': choose from .*sar.*tent.*did you mean 'sar'\?"):
        adapter_class("sarr")
    with pytest.raises(tta.InputError) as error:
        adapter_class("zzzzzz")
    assert "did you mean" not in str(error.value)
    assert adapter_class("sar") is SAR


@pytest.mark.parametrize("name", tta.list_adapters())
def test_documentation_of_every_argument(name):
    """Each constructor argument is documented with the class, and the class says where the method comes from."""
    cls = adapter_class(name)
    for argument in inspect.signature(cls).parameters:
        assert f"    {argument}:" in cls.__doc__, f"{cls.__name__} does not document {argument}"
