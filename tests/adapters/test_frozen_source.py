"""The frozen source model shares with the adapted one what is not trained: no method may write that."""

import copy

import pytest
import torch

import tta
from tta.monitor import FrozenSource


@pytest.mark.parametrize("name", tta.list_adapters())
def test_the_frozen_source_stays_whatever_a_method_does(build, stream, name):
    online = build(name, "bn")
    model = online.model
    plain = copy.deepcopy(model).eval()
    frozen = FrozenSource(model)
    untrained = {key: p.clone() for key, p in model.named_parameters() if not p.requires_grad}
    for x in stream[:2]:
        online(x)
    online.reset()
    state = copy.deepcopy(online.state_dict())
    online(stream[2])
    online.load_state_dict(state)
    online(stream[3])
    with torch.no_grad():
        assert torch.equal(frozen(stream[0]), plain(stream[0]))
    assert all(torch.equal(p, untrained[key]) for key, p in model.named_parameters() if key in untrained)
