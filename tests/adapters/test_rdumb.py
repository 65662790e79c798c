"""RDumb is ETA that starts anew after every so many batches, whatever they taught."""

import pytest
import torch

import tta
from tta.adapters import RDumb
from tta.adapters.base import ResetScope
from tta.resets import Periodic

ARGUMENTS = {"margin": 0.9, "redundancy": 0.9, "lr": 0.02}


def test_equals_eta_that_is_reset_by_hand(trained, stream, flat):
    rdumb = tta.online(trained("gn"), "rdumb", every=2, **ARGUMENTS)
    eta = tta.online(trained("gn"), "eta", **ARGUMENTS)
    for number, x in enumerate(stream):
        if number % 2 == 0:
            eta.reset()
        assert torch.equal(rdumb(x), eta(x))
        assert (rdumb.last.reset is ResetScope.ALL) == (number % 2 == 1)
    assert rdumb.resets == 3
    eta.reset()
    assert flat(rdumb.model.state_dict()) == flat(eta.model.state_dict())
    assert flat(rdumb.optimizer.state_dict()) == flat(eta.optimizer.state_dict())
    assert rdumb.adapter.mean_prediction.shape == (0,)


def test_equals_eta_with_a_periodic_protocol(trained, stream, flat):
    rdumb = tta.online(trained("gn"), "rdumb", every=2, **ARGUMENTS)
    eta = tta.online(trained("gn"), "eta", resets=Periodic(2), **ARGUMENTS)
    for x in stream[:5]:
        assert torch.equal(rdumb(x), eta(x))
    assert rdumb.resets == eta.resets == 2
    assert flat(rdumb.model.state_dict()) == flat(eta.model.state_dict())


def test_batches_that_teach_nothing_count(trained, stream):
    online = tta.online(trained("gn"), "rdumb", every=3, **ARGUMENTS)
    online(stream[0])
    moved = [p.detach().clone() for p in online.model.parameters()]
    online(torch.full_like(stream[0], torch.nan))
    assert all(torch.equal(a, b) for a, b in zip(moved, online.model.parameters(), strict=True))
    online.adapter.margin = 1e-6
    online(stream[1])
    assert online.resets == 1
    assert int(online.adapter.batches) == 0


def test_bad_values():
    with pytest.raises(tta.InputError, match="every=0: need every >= 1"):
        RDumb(every=0)
    with pytest.raises(tta.InputError, match=r"margin=0\.0: need margin > 0"):
        RDumb(margin=0.0)
