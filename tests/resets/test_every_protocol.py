"""What every protocol promises, with methods of every kind."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import tta
from tta.adapters import SADE
from tta.errors import InputError
from tta.estimates import AETTA
from tta.resets import (
    AccuracyEstimateReset,
    EntropyAverage,
    FisherRestore,
    Never,
    PerBatch,
    PerDomain,
    Periodic,
    ResetProtocol,
    StochasticRestore,
)

PROTOCOLS: dict[str, Callable[[], ResetProtocol]] = {
    "never": Never,
    "per_batch": PerBatch,
    "per_domain": PerDomain,
    "periodic": lambda: Periodic(every=3),
    "stochastic_restore": lambda: StochasticRestore(probability=0.3, seed=1),
    "fisher_restore": lambda: FisherRestore(share=0.3),
    "entropy_average": lambda: EntropyAverage(threshold=1.5, margin=1.0),
    "accuracy_estimate": lambda: AccuracyEstimateReset(AETTA(passes=2, window=6), drop=0.0, window=1),
}
ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bnstats": ("bn", {"batch_weight": 0.3, "accumulate": True}),
    "roid": ("bn", {}),
    "sar": ("bn ln", {"margin": 0.97}),
    "source": ("bn ln", {}),
    "t3a": ("ln", {}),
    "tent": ("bn ln", {}),
}
"""Kinds of networks, and arguments."""
CASES = [(p, name, kind) for p in PROTOCOLS for name, (kinds, _) in ADAPTERS.items() for kind in kinds.split()]


@pytest.mark.parametrize(("protocol", "name", "kind"), CASES)
def test_finite_resumable_and_resettable_bit_for_bit(protocol, name, kind, trained, stream, flat):
    def make():
        return tta.online(trained(kind), name, resets=PROTOCOLS[protocol](), lr=0.02, **ADAPTERS[name][1])

    def state(online):
        online.resets = 0
        everything = {"saved": online.state_dict(), "weights": dict(online.model.named_parameters())}
        return flat({**everything, "buffers": dict(online.named_buffers())})

    online = make()
    fresh = state(online)
    first = online(stream[0])
    online.new_domain()
    online(stream[1])
    saved = copy.deepcopy(online.state_dict())
    resumed = make()
    resumed.load_state_dict(saved)
    for number, x in enumerate(stream[2:5]):
        if number == 1:
            online.new_domain()
            resumed.new_domain()
        logits = online(x)
        assert torch.isfinite(logits).all()
        assert torch.equal(logits, resumed(x))
        assert online.resets == resumed.resets
    assert state(online) == state(resumed)
    online.reset()
    assert state(online) == fresh
    assert torch.equal(online(stream[0]), first)


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_every_protocol_but_never_changes_what_tent_does(protocol, trained, stream):
    def logits(resets):
        online = tta.online(trained("bn"), "tent", resets=resets, lr=0.5)
        outputs = []
        for number, x in enumerate(stream):
            if number == 3:
                online.new_domain()
            outputs.append(online(x))
        return torch.cat(outputs), online.resets

    plain, resets = logits("continual")
    other, others = logits(PROTOCOLS[protocol]())
    assert resets == 0
    assert torch.equal(plain, other) == (protocol == "never")
    assert (others > 0) == (protocol not in ("never", "stochastic_restore", "fisher_restore"))


def test_protocols_work_in_inference_mode(trained, stream):
    for make in PROTOCOLS.values():
        online = tta.online(trained("bn"), "tent", resets=make(), lr=0.02)
        with torch.inference_mode():
            for x in stream[:3]:
                online(x.clone())
        online.reset()


def test_a_transductive_method_is_not_reset():
    from tta.adapters import Transductive

    with pytest.raises(InputError, match=r"SADE sees the whole stream .* not Periodic\(every=3\), or its online mode"):
        tta.online(nn.Linear(2, 2), SADE(transductive=Transductive()), resets=Periodic(every=3))


class Third(ResetProtocol):
    """Somebody's own protocol: back to the source after every third class in a row."""

    def __init__(self, target: int) -> None:
        super().__init__()
        self.target = target

    def after(self, adaptation, x, output):
        return tta.adapters.ResetScope.ALL if bool((output.logits.argmax(1) == self.target).all()) else None


def test_a_protocol_of_ones_own(scores):
    online = scores(Third(2))
    online(torch.eye(3)[[1, 2]])
    online(torch.eye(3)[[2, 2]])
    assert online.resets == 1
    assert online.protocol.label == "Third(target=2)"
