"""ETA is EATA without the anchor."""

import copy

import pytest
import torch

import tta
from tta.adapters import ETA


def test_equals_eata_without_the_anchor_bit_for_bit(trained, stream):
    arguments = {"margin": 0.9, "redundancy": 0.9, "lr": 0.02}
    eta = tta.online(trained("gn"), "eta", **arguments)
    eata = tta.online(trained("gn"), "eata", fisher_alpha=0.0, **arguments)
    start = copy.deepcopy(eta.model.state_dict())
    for x in stream:
        assert torch.equal(eta(x), eata(x))
    assert any(not torch.equal(value, start[name]) for name, value in eta.model.state_dict().items())


def test_has_no_anchor_to_offer_and_wants_no_source():
    with pytest.raises(TypeError, match="fisher_alpha"):
        ETA(fisher_alpha=0.0)
    assert not ETA.facts.needs_source_data


@pytest.mark.parametrize("name", ["margin", "redundancy"])
def test_bad_values(name):
    with pytest.raises(tta.InputError, match=f"{name}=0.0: need {name} > 0"):
        ETA(**{name: 0.0})
