import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torchvision.models import resnet18

import tta
import tta.estimates
import tta.functional
import tta.monitor
import tta.resets

ROOT = Path(__file__).parent.parent


@pytest.fixture
def toy() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3))


@pytest.mark.parametrize(
    "modules", ["tta", "tta.adapters, tta.estimates, tta.functional, tta.monitor, tta.resets, models"]
)
def test_import_brings_no_lightning(modules):
    code = (
        f"import sys, {modules}\n"
        "heavy = {'pytorch_lightning', 'lightning', 'lightning_fabric', 'torchmetrics', 'matplotlib'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_public_names():
    assert set(tta.__all__) == {"InputError", "OnlineModel", "list_adapters", "online"}
    assert all(hasattr(tta, name) for name in tta.__all__)
    for package in (tta.adapters, tta.estimates, tta.functional, tta.monitor, tta.resets):
        assert len(set(package.__all__)) == len(package.__all__)
        assert all(inspect.getdoc(getattr(package, name)) for name in package.__all__)
    assert issubclass(tta.InputError, ValueError)


def test_lists_of_methods():
    assert tta.list_adapters("s*") == ["sade", "sar", "shot", "source"]
    older = ["bnstats", "eata", "itta", "labelshift", "metadmoe", "sade", "sar", "source", "tent"]
    newer = ["cmf", "cotta", "deyo", "eta", "guard", "lame", "memo", "note", "rdumb", "roid", "rotta", "shot", "t3a"]
    newest = ["frozenviews"]
    assert tta.list_adapters() == sorted(older + newer + newest)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"adapter": "tentt"}, r"unknown adapter 'tentt': choose from .*; did you mean 'tent'\?"),
        ({"adapter": "tent", "optimizer": "lion"}, "unknown optimizer 'lion': choose from sgd, adam, adamw, or give a"),
        (
            {"adapter": "tent", "rho": 0.1},
            "unknown argument 'rho': Tent takes select; the optimizer takes lr, momentum",
        ),
        ({"adapter": "source", "margin": 0.1}, "unknown argument 'margin': Source takes none; the optimizer takes lr"),
        ({"adapter": "tent", "optimizer": "adam", "momentum": 0.9}, "unknown argument 'momentum': .*lr, betas"),
        ({"adapter": tta.adapters.SAR(), "rho": 0.1}, "unknown argument 'rho'"),
        ({"adapter": "sar", "margin": -1.0}, "margin=-1.0: need margin > 0"),
    ],
)
def test_errors_name_the_value_and_the_choice(toy, arguments, message):
    with pytest.raises(tta.InputError, match=message) as error:
        tta.online(toy, **arguments)
    assert "\n" not in str(error.value)


def test_not_a_module():
    with pytest.raises(tta.InputError, match=r"model is a function: give a torch.nn.Module"):
        tta.online(lambda x: x, "tent")
    with pytest.raises(tta.InputError, match="model is a str"):
        tta.online("resnet18", "tent")


def test_wrong_output_shape(toy):
    online = tta.online(nn.Sequential(toy, nn.Unflatten(1, (3, 1))), "tent")
    with pytest.raises(tta.InputError, match=r"a tensor of shape \(4, 3, 1\): adapters need a classifier"):
        online(torch.randn(4, 5))


def test_nothing_to_adapt():
    with pytest.raises(tta.InputError, match=r"no layer to adapt.*the model has 1 linear"):
        tta.online(nn.Linear(3, 3), "sar")


PLAIN = [name for name in tta.list_adapters() if not tta.adapters.registry.adapter_class(name).facts.needs_companion]


FEW = {"cotta": {"views_count": 2}, "guard": {"adapter": tta.adapters.Tent()}, "memo": {"count": 2}}
"""A method to guard, and few views of each image."""


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(
    "make",
    [lambda: resnet18(num_classes=10), lambda: timm.create_model("test_efficientnet", num_classes=10)],
    ids=["torchvision", "timm"],
)
def test_networks_of_others_work_with_every_method_that_needs_no_companion(name, make):
    cls = tta.adapters.registry.adapter_class(name)
    source = [(torch.rand(10, 3, 64, 64), torch.arange(10))]
    online = tta.online(make(), cls(**FEW.get(name, {})), source=source)
    for x in torch.rand(2, 4, 3, 64, 64):
        logits = online(x)
        assert logits.shape == (4, 10)
        assert torch.isfinite(logits).all()


def test_example_in_the_documentation():
    finder = doctest.DocTestFinder(recurse=False)
    examples = finder.find(tta.online, "online", module=False, globs={})
    runner = doctest.DocTestRunner()
    for example in examples:
        runner.run(example)
    assert runner.summarize(verbose=False).attempted >= 3
    assert runner.failures == 0


def test_a_class_in_place_of_an_adapter_is_told():
    with pytest.raises(tta.InputError, match=r"give a name of tta\.list_adapters\(\), or an instance"):
        tta.online(torch.nn.Linear(2, 2), tta.adapters.Tent)
