"""A student with experts."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models import DomainExperts
from tta.adapters.head import features_of, linear_head
from tta.errors import InputError


@pytest.fixture
def model(untrained: Callable[..., nn.Module]) -> DomainExperts:
    experts = DomainExperts(untrained("bn"), experts=3).eval()
    for number, expert in enumerate(experts.experts):
        expert.load_state_dict(untrained("bn", seed=number + 1).state_dict())
    return experts


@pytest.fixture
def x(digits: tuple[Tensor, Tensor]) -> Tensor:
    return digits[0][:5]


def test_to_everybody_else_it_is_the_student(model: DomainExperts, x: Tensor) -> None:
    assert torch.equal(model(x), model.student(x))
    assert linear_head(model) is linear_head(model.student)


def test_features_are_what_enters_the_head(model: DomainExperts, x: Tensor) -> None:
    with features_of(linear_head(model.student)) as seen:
        logits = model(x)
    features = model(x, features=True)
    assert torch.equal(features, seen[0])
    assert torch.equal(linear_head(model.student)(features), logits)


def test_parameters_of_features_and_head_are_all_of_the_student(model: DomainExperts) -> None:
    features, head = model.feature_parameters(), model.head_parameters()
    named = dict(model.named_parameters())
    assert all(named[name] is parameter for name, parameter in {**features, **head}.items())
    assert {**features, **head}.keys() == {name for name in named if name.startswith("student.")}
    assert {id(p) for p in head.values()} == {id(p) for p in linear_head(model).parameters()}


def test_tokens_are_the_experts_features(model: DomainExperts, x: Tensor) -> None:
    tokens = model.expert_features(x)
    assert tokens.shape == (5, 3, 96)
    for number, expert in enumerate(model.experts):
        with features_of(linear_head(expert)) as seen:
            expert(x)
        assert torch.equal(tokens[:, number], seen[0])
    assert not tokens.requires_grad


@pytest.mark.parametrize("hidden", [0, 1, 2])
def test_a_hidden_expert_is_never_called(model: DomainExperts, x: Tensor, hidden: int) -> None:
    calls: list[int] = []
    for number, expert in enumerate(model.experts):
        expert.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
    whole = model.expert_features(x)
    calls.clear()
    tokens = model.expert_features(x, hidden)
    others = [number for number in range(3) if number != hidden]
    assert calls == others
    assert torch.equal(tokens, whole[:, others])
    model.experts[hidden].apply(lambda module: [p.data.fill_(torch.nan) for p in module.parameters(recurse=False)])
    assert torch.isfinite(model.aggregate(x, hidden)).all()
    assert torch.equal(model.aggregate(x, hidden), model.aggregator(whole[:, others]))


def test_target_has_gradients_to_the_aggregator_alone(model: DomainExperts, x: Tensor) -> None:
    model.aggregated_logits(x).sum().backward()
    touched = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert touched == {"aggregator"}


def test_files_fill_student_and_experts(untrained: Callable[..., nn.Module], tmp_path: Path) -> None:
    networks = [untrained("gn", seed=seed) for seed in (1, 2, 3)]
    files = [str(tmp_path / f"{seed}.safetensors") for seed in (1, 2, 3)]
    for network, file in zip(networks, files, strict=True):
        save_file(network.state_dict(), file)
    model = DomainExperts(untrained("gn"), experts=2, student_weights=files[0], expert_weights=files[1:])
    for own, network in zip((model.student, *model.experts), networks, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own.parameters(), network.parameters(), strict=True))


def test_bad_input(untrained: Callable[..., nn.Module], tmp_path: Path) -> None:
    student = untrained("gn")
    with pytest.raises(InputError, match="experts=1: need at least 2"):
        DomainExperts(copy.deepcopy(student), experts=1)
    with pytest.raises(InputError, match="Conv2d has no linear layer that could be its head"):
        DomainExperts(nn.Conv2d(3, 3, 1), experts=2)
    with pytest.raises(InputError, match="expert_weights: 1 files for 2 experts; give one for each"):
        DomainExperts(copy.deepcopy(student), experts=2, expert_weights=["a.safetensors"])
    with pytest.raises(InputError, match=r"no weights at .*none.safetensors: give the weights.safetensors"):
        DomainExperts(copy.deepcopy(student), experts=2, student_weights=str(tmp_path / "none.safetensors"))
    broken = tmp_path / "broken.safetensors"
    broken.write_text("no tensors")
    with pytest.raises(InputError, match=r"cannot read weights from .*broken"):
        DomainExperts(copy.deepcopy(student), experts=2, student_weights=str(broken))
    other = tmp_path / "other.safetensors"
    save_file(untrained("bn").state_dict(), other)
    with pytest.raises(InputError, match=r"other\.safetensors does not fit CifarResNet, the student's network") as said:
        DomainExperts(copy.deepcopy(student), experts=2, expert_weights=[str(other)] * 2)
    assert "\n" not in str(said.value)
