"""The methods against logits that the authors' own code gave, batch by batch; see ``parity/README.md``."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import tta

FOLDER = Path(__file__).parent / "parity"
CASES: dict[str, dict[str, Any]] = json.loads((FOLDER / "cases.json").read_text())
LN10 = math.log(10)


def convolutions_with_batch_norm() -> nn.Module:
    widths = {"layer1": (3, 16), "layer2": (16, 24), "layer3": (24, 32), "layer4": (32, 32)}
    model = nn.Sequential()
    for name, (inputs, outputs) in widths.items():
        convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        model.add_module(name, nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU()))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("fc", nn.Linear(32, 10))
    return model


NETWORKS = {
    "batchnorm": convolutions_with_batch_norm,
    "convnext": lambda: timm.create_model("test_convnext", num_classes=10),
}


@pytest.fixture(scope="module")
def streams() -> dict[str, list[Tensor]]:
    stored = np.load(FOLDER / "streams.npz")
    return {name: [pixels(batch) for batch in torch.from_numpy(stored[name])] for name in stored.files}


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    stored = np.load(FOLDER / "logits.npz")
    return {name: torch.from_numpy(stored[name]) for name in stored.files}


def pixels(batch: Tensor) -> Tensor:
    return (batch.float() / 255).repeat(1, 3, 1, 1)


def arguments(method: str, case: dict[str, Any], clean: Tensor) -> dict[str, Any]:
    """What to give ``tta.online`` for a published configuration."""
    if method in ("source", "bn_stats"):
        return {"adapter": method}
    if method == "tent":
        return {"adapter": "tent", "optimizer": case["optimizer"].split()[0].lower(), "lr": case["lr"]}
    optimizer = {"lr": case["lr"], "momentum": case["momentum"]}
    if method.startswith("sar"):
        own = {"margin": case["margin_e0"] / LN10, "rho": case["rho"], "reset_threshold": case["reset"]}
        return {"adapter": "sar", "published": True, **own, **optimizer}
    own = {"margin": case["e_margin"] / LN10, "redundancy": case["d_margin"], "fisher_alpha": case["fisher_alpha"] or 0}
    source = ((clean[:128] * 255).round() / 255).split(32) if case["fisher_alpha"] else None
    return {"adapter": "eata", "source": source, **own, **optimizer}


def run(name: str, stream: list[Tensor], clean: Tensor) -> tuple[Tensor, tta.OnlineModel]:
    method, network, _ = name.split("-")
    model = NETWORKS[network]()
    model.load_state_dict(load_file(FOLDER / f"{network}.safetensors"))
    online = tta.online(model.eval(), **arguments(method, CASES[name], clean))
    return torch.stack([online(x) for x in stream]), online


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_published_code(name, streams, published, digits):
    got, online = run(name, streams[name.split("-")[2]], digits[0])
    difference = (got - published[name]).abs().flatten(1).max(dim=1).values
    if "aggressive" in name:
        assert difference[:5].max() <= 1e-2
        assert online.resets >= 1 or "iid" in name
    else:
        assert difference.max() <= 2e-3


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith(("tent", "eata", "sar_moderate"))])
def test_these_cases_tell_methods_apart(name, published):
    """A method that did nothing would not pass: the published logits move away from the unadapted ones."""
    _, network, stream = name.split("-")
    still = published[f"{'source' if network == 'convnext' else 'bn_stats'}-{network}-{stream}"]
    assert (published[name] - still).abs().max() > 0.05


def test_everything_shipped_is_used(published):
    assert set(published) == set(CASES)
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 1_500_000
