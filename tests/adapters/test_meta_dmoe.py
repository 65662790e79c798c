"""What is particular to Meta-DMoE; the promises of all methods are in ``test_contract.py``."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import tta
from models import DomainExperts
from tta.adapters import MetaDMoE
from tta.errors import InputError

Make = Callable[..., tta.OnlineModel]


def test_only_the_students_features_are_trained(build: Make) -> None:
    model = build("metadmoe", "bn").model
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if name.startswith("student.")} - {
        "student.fc.weight",
        "student.fc.bias",
    }


def test_images_gather_until_there_are_enough(build: Make, stream: list[Tensor]) -> None:
    online = build("metadmoe", "bn", support=10, steps=1)
    source = copy.deepcopy(online.model)
    assert torch.equal(online(stream[0]), source(stream[0]).detach())
    assert online.last.loss is None
    logits = online(stream[1])
    assert online.last.loss is not None
    assert not torch.allclose(logits, source(stream[1]))
    # Ten images at once, or in two batches of which the second has two more than needed: the same step.
    at_once = build("metadmoe", "bn", support=None, steps=1)
    at_once(torch.cat(stream[:2])[:10])
    assert torch.allclose(at_once.adapter.predict(at_once.model, stream[1]), logits, atol=1e-6)


def test_later_batches_take_no_step(build: Make, flat: Callable[..., dict], stream: list[Tensor]) -> None:
    online = build("metadmoe", "bn", support=6, steps=1)
    online(stream[0])
    after = flat(online.model.state_dict())
    for x in stream[1:]:
        online(x)
        assert online.last.loss is None
    assert flat(online.model.state_dict()) == after
    online.reset()
    online(stream[1])
    assert online.last.loss is not None


def test_more_steps_are_taken_on_later_images_if_asked(build: Make, stream: list[Tensor]) -> None:
    online = build("metadmoe", "bn", support=6, steps=2)
    losses = [(online(x), online.last.loss)[1] for x in stream]
    assert [loss is not None for loss in losses] == [True, True, False, False, False, False]


def test_the_step_lowers_the_distance(build: Make, stream: list[Tensor]) -> None:
    online = build("metadmoe", "bn", support=6, steps=6, lr=1e-3)
    online(stream[0])
    first = online.last.loss
    online(stream[0])
    assert online.last.loss < first


def test_all_experts_are_asked(build: Make, stream: list[Tensor]) -> None:
    online = build("metadmoe", "bn", support=6, steps=1)
    calls: list[int] = []
    for number, expert in enumerate(online.model.experts):
        expert.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
    for x in stream[:3]:
        online(x)
    assert calls == [0, 1]


def test_support_is_what_a_domain_must_have() -> None:
    assert MetaDMoE(support=40).facts.smallest_domain == 40
    assert MetaDMoE(support=None).facts.smallest_domain == 1
    assert MetaDMoE.facts.smallest_domain == 24


def test_state_with_more_images_than_before_loads(build: Make, stream: list[Tensor]) -> None:
    one, other = (build("metadmoe", "bn", support=30, steps=1) for _ in range(2))
    for x in stream[:3]:
        one(x)
    other(stream[0])
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.adapter.images, torch.cat(stream[:3]))
    assert all(torch.equal(one(x), other(x)) for x in stream[3:])


class Grown(DomainExperts):
    """Experts that see more than the student."""

    def expert_features(self, x: Tensor, hidden: int | None = None) -> Tensor:
        return super().expert_features(x, hidden).repeat(1, 1, 2)

    def aggregate(self, x: Tensor, hidden: int | None = None) -> Tensor:
        return self.expert_features(x, hidden).mean(dim=1)


def test_features_of_different_sizes(untrained: Callable[..., nn.Module], stream: list[Tensor]) -> None:
    online = tta.online(Grown(untrained("gn"), experts=2), "metadmoe", support=6)
    with pytest.raises(InputError, match=r"student have shape \(6, 64\) and those of the aggregator \(6, 128\)"):
        online(stream[0])


@pytest.mark.parametrize("arguments", [{"support": 0}, {"steps": 0}, {"support": None, "steps": 0}])
def test_bad_arguments(arguments: dict[str, int | None]) -> None:
    with pytest.raises(InputError, match="need both >= 1, or support=null for a whole batch"):
        MetaDMoE(**arguments)


def test_a_plain_network_is_refused(untrained: Callable[..., nn.Module]) -> None:
    with pytest.raises(InputError, match=r"CifarResNet has no experts, .*: Meta-DMoE needs a student with experts"):
        tta.online(untrained("gn"), "metadmoe")
