"""Protocols that go by batches and domains."""

import pytest
import torch

import tta
from tta.adapters import ResetScope
from tta.errors import InputError
from tta.resets import Never, PerBatch, PerDomain, Periodic, reset_protocol

X = torch.ones(2, 2)


def weights(online, batches, domains=()):
    """The weight after each batch, each domain starting before the batches named."""
    values = []
    for number in range(batches):
        if number in domains:
            online.new_domain()
        online(X)
        values.append(online.model.weight[0, 0].item())
    return values


def test_never(walk):
    online = walk(Never())
    assert weights(online, 3, domains=(1,)) == [-1, -2, -3]
    assert online.resets == 0


def test_per_batch_starts_every_batch_at_the_source(walk):
    online = walk(PerBatch(), momentum=0.9)
    assert weights(online, 3) == [-1, -1, -1]
    assert online.resets == 2, "nothing was learnt before the first batch"
    assert int(online.adapter.seen) == 1


def test_per_domain(walk):
    online = walk(PerDomain())
    assert weights(online, 6, domains=(0, 2, 3)) == [-1, -2, -1, -1, -2, -3]
    assert online.resets == 2
    online.new_domain()
    online.new_domain()
    online(X)
    assert online.resets == 3, "two boundaries without a batch in between are one"


def test_per_domain_takes_one_domain_a_batch(walk):
    online = walk(PerDomain())
    adaptation = online._adaptation()
    with pytest.raises(InputError, match="needs one domain per batch: use another order than mixed"):
        online.protocol(adaptation, X, torch.tensor([0, 1]))
    with pytest.raises(InputError, match="needs the domain of every batch and was told none"):
        online.protocol(adaptation, X)


def test_periodic(walk):
    online = walk(Periodic(every=3), momentum=0.9)
    assert weights(online, 7) == pytest.approx([-1, -2.9, 0, -1, -2.9, 0, -1])
    assert online.resets == 2


def test_a_reset_that_the_method_asks_for_starts_no_new_period(walk):
    online = walk(Periodic(every=3), asks=[None, ResetScope.ALL, None, None])
    assert weights(online, 4) == [-1, 0, 0, -1]
    assert online.resets == 2


@pytest.mark.parametrize("asked", [ResetScope.WEIGHTS, ResetScope.ALL])
def test_the_wider_scope_wins_and_both_are_one_reset(walk, asked):
    online = walk(Periodic(every=1), asks=[asked], momentum=0.9)
    online(X)
    assert (online.resets, online.last.reset) == (1, ResetScope.ALL)
    assert not online.optimizer.state
    assert int(online.adapter.seen) == 0


def test_weights_alone_where_only_the_method_asks(walk):
    online = walk(Never(), asks=[ResetScope.WEIGHTS], momentum=0.9)
    online(X)
    assert (online.resets, online.last.reset) == (1, ResetScope.WEIGHTS)
    assert online.optimizer.state


def test_a_period_of_eta_is_rdumb(trained, stream, flat):
    arguments = {"margin": 0.97, "redundancy": 0.95, "lr": 0.02}
    rdumb = tta.online(trained("bn"), "rdumb", every=2, **arguments)
    eta = tta.online(trained("bn"), "eta", resets=Periodic(every=2), **arguments)
    for x in stream[:5]:
        assert torch.equal(eta(x), rdumb(x))
    assert eta.resets == rdumb.resets == 2
    assert flat(eta.model.state_dict()) == flat(rdumb.model.state_dict())


def test_names():
    for name, cls in (("continual", Never), ("per_domain", PerDomain), ("episodic", PerBatch)):
        assert type(reset_protocol(name)) is cls
        assert reset_protocol(name).label == name
    protocol = Periodic(every=7)
    assert reset_protocol(protocol) is protocol
    assert protocol.label == "Periodic(every=7)"
    assert Periodic().label == "Periodic"
    for wrong in ("sometimes", Periodic, None):
        with pytest.raises(InputError, match="choose from continual, per_domain, episodic, or give an instance"):
            reset_protocol(wrong)


def test_no_period_of_nothing():
    with pytest.raises(InputError, match="every=0: need at least 1 batch"):
        Periodic(every=0)


def test_samples_between_resets():
    stretches = [protocol.stretch(16) for protocol in (Never(), PerDomain(), PerBatch(), Periodic(every=3))]
    assert stretches == [None, None, 16, 48]
