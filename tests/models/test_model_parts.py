"""Every part under ``configs/model`` builds its network, which gives logits of the data that the part is for."""

from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import nn

PARTS = sorted(Path(__file__).parents[2].glob("configs/model/*.yaml"))
LOGITS = {
    "imagenet_lt_experts": 1000,
    "imagenet_vit_base": 1000,
    "imagenet_a_vit_base": 200,
    "imagenet_r_vit_base": 200,
    "pacs_domain_experts": 7,
}


def without_weights(backbone):
    """Fetch no weights; and of the twelve equal blocks of a large transformer, keep two."""
    options = dict(backbone.get("init_args", {}))
    if "backbone" in options:
        options["backbone"] = without_weights(options["backbone"])
    if options.get("pretrained"):
        options |= {"pretrained": False, "arguments": {"depth": 2}}
    return {**backbone, "init_args": options}


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_every_part_gives_logits(path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "backbone")
    backbone = without_weights(yaml.safe_load(path.read_text())["model"]["backbone"])
    model = parser.instantiate_classes(parser.parse_object({"backbone": backbone})).backbone.eval()
    side = 224 if path.stem.startswith("imagenet") else 32
    with torch.no_grad():
        logits = model(torch.rand(2, 3, side, side))
    assert logits.shape == (2, LOGITS.get(path.stem, 10))
    assert logits.isfinite().all()
