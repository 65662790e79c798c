"""Online models for the tests of the methods."""

import copy
from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

import models
import tta
from tests.copies import copies_of
from tta.adapters import Adapter, LabelShiftNetwork, Tent
from tta.adapters.head import linear_head
from tta.adapters.registry import adapter_class
from tta.companion import Companion
from tta.modules import ITTATraining

BASE: dict[str, dict[str, Any]] = {
    "cmf": {"views": v2.RandomHorizontalFlip()},
    "cotta": {"threshold": 1.1, "views_count": 2, "views": v2.RandomHorizontalFlip(), "restore": 0.01},
    "deyo": {"margin": 1.5, "plpd_threshold": -1.0},
    "eata": {"margin": 0.97, "redundancy": 0.95, "fisher_alpha": 20.0},
    "eta": {"margin": 0.97, "redundancy": 0.95},
    "frozenviews": {"count": 2.0},
    "guard": {"adapter": Tent(), "probes": 8, "images": 40, "budget": 3.0, "level": 0.5},
    "lame": {"affinity": "knn", "neighbours": 1},
    "memo": {"count": 2, "views": v2.RandomHorizontalFlip()},
    "metadmoe": {"support": 6, "steps": 6},
    "note": {"memory": 6, "period": 6},
    "rdumb": {"margin": 0.97, "redundancy": 0.95, "every": 4},
    "roid": {"views": v2.RandomHorizontalFlip()},
    "rotta": {"capacity": 6, "update_every": 6, "nu": 0.1, "views": v2.RandomHorizontalFlip()},
    "sar": {"margin": 0.97, "reset_threshold": 0.0},
    "t3a": {"filter_size": 2},
}
"""Hyper-parameters under which a method learns from most samples of the small stream."""

Prepared = tuple[nn.Module, dict[str, Any]]


def with_experts(model: nn.Module, kind: str) -> Prepared:
    """The network as the student of two experts that are not quite its equals."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = models.DomainExperts(model, experts=2)
        for parameter in model.experts.parameters():
            parameter.data += 0.1 * parameter.data.std(correction=0) * torch.randn_like(parameter)
    return model, {}


BLOCKS = {
    "bn": ["layer1", "layer2", "layer3"],
    "ln": ["blocks.0", "blocks.1"],
    "gn": ["layer1", "layer2", "layer3"],
}


def with_consistency(model: nn.Module, kind: str) -> Prepared:
    """The network itself, and a consistency loss as at the start of training with a bank of eight styles."""
    training = ITTATraining(model, BLOCKS[kind], num_classes=10)
    generator = torch.Generator().manual_seed(2)
    for row, name in enumerate(training.style_blocks):
        training.bank.add(row, torch.rand(8, *training.shapes[name][0], generator=generator))
    return model, {"companion": training.companion()}


def as_ensemble(model: nn.Module, kind: str) -> Prepared:
    """Three experts: the network, and two copies of which some weights are multiplied, so that zeros stay zero."""
    generator = torch.Generator().manual_seed(3)
    make_copy = copies_of(model)
    copies = [model, make_copy(), make_copy()]
    for strength, expert in zip((0.3, 0.6), copies[1:], strict=True):
        for parameter in expert.parameters():
            parameter.data *= 1 + strength * torch.randn(parameter.shape, generator=generator)
    return models.Experts(copies), {}


def label_shift_companion(features: int, seed: int = 4) -> Companion:
    """An adapter network that changes the head visibly, for a source with a tail, and figures of its calibration."""
    generator = torch.Generator().manual_seed(seed)
    network = LabelShiftNetwork(features, [float(count) for count in range(20, 10, -1)], hidden=8)
    for parameter in network.parameters():
        parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator)
    tensors = network.tensors()
    for head in ("raw", "uniform"):
        tensors[f"{head}.temperatures"] = torch.tensor(1.5)
        tensors[f"{head}.biases"] = 0.1 * torch.randn(10, generator=generator)
        tensors[f"{head}.confusions"] = 0.5 * torch.eye(10) + 0.05
        tensors[f"{head}.means"] = (torch.tensor([[0.3], [0.0], [-0.3]]) * network.source_prior.log()).softmax(dim=1)
    return Companion("LabelShift", tensors, {"network": network.settings()})


def with_label_shift(model: nn.Module, kind: str) -> Prepared:
    """The network itself, and an adapter network for features of its size."""
    return model, {"companion": label_shift_companion(linear_head(model).in_features)}


COMPANIONS: dict[str, Callable[[nn.Module, str], Prepared]] = {
    "itta": with_consistency,
    "labelshift": with_label_shift,
    "metadmoe": with_experts,
    "sade": as_ensemble,
}
"""For methods that need something trained: makes, of a plain network and its kind, the network that the method takes
and the constructor arguments that carry its companion."""


def companion(name: str, kind: str, model: nn.Module) -> Prepared:
    return COMPANIONS[name](model, kind) if name in COMPANIONS else (model, {})


@pytest.fixture
def build(
    trained: Callable[[str], nn.Module], digits: tuple[Tensor, Tensor], stream: list[Tensor]
) -> Callable[..., tta.OnlineModel]:
    """Maker of an online model of a trained network, with source or target images where the method wants some."""

    def make(name: str, kind: str, model: nn.Module | None = None, **arguments: Any) -> tta.OnlineModel:
        model, own = companion(name, kind, trained(kind) if model is None else model)
        arguments = {"lr": 0.02, **BASE.get(name, {}), **own, **arguments}
        images = digits[0][:16].split(8)
        if adapter_class(name).facts.needs_source_labels:
            images = [(digits[0][:40], digits[1][:40])]
        arguments.setdefault("source", images)
        if isinstance(arguments.get("adapter"), Adapter):  # an argument of the method that the function has too
            of_method = {
                word: arguments.pop(word) for word in signature(adapter_class(name)).parameters if word in arguments
            }
            method: str | Adapter = adapter_class(name)(**copy.deepcopy(of_method))
        else:
            method = name
        online = tta.online(model, method, **arguments)
        if online.adapter.facts.needs_target_data:
            online.observe_target(stream)
        return online

    return make


@pytest.fixture
def everything(flat: Callable[[Any], dict[str, Any]]) -> Callable[[tta.OnlineModel], dict[str, Any]]:
    """All that a stream may change: weights, buffers (also those not in the state dict), optimiser, method state."""

    def state(online: tta.OnlineModel) -> dict[str, Any]:
        return flat(
            {
                "weights": dict(online.model.named_parameters()),
                "buffers": dict(online.model.named_buffers()),
                "optimizer": online.optimizer.state_dict() if online.optimizer is not None else None,
                "adapter": [dict(online.adapter.named_parameters()), dict(online.adapter.named_buffers())],
                "saved": online.state_dict(),
            }
        )

    return state


class PrivateGradients:
    """An updater that keeps gradients to itself until the step: nobody can read ``.grad`` in between."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.discard()

    def backward(self, loss: Tensor) -> None:
        gradients = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
        for total, gradient in zip(self.sums, gradients, strict=True):
            total += gradient

    def step(self) -> bool:
        for parameter, total in zip(self.parameters, self.sums, strict=True):
            parameter.grad = total
        self.optimizer.step()
        self.discard()
        return True

    def discard(self) -> None:
        self.optimizer.zero_grad()
        self.sums = [torch.zeros_like(parameter) for parameter in self.parameters]

    def snapshot(self) -> dict[str, Any]:
        return copy.deepcopy(self.optimizer.state_dict())

    def restore(self, snapshot: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(snapshot)

    def any(self, flag: bool) -> bool:
        return flag

    def mean(self, value: Tensor) -> Tensor:
        return value


@pytest.fixture
def private_gradients() -> type[PrivateGradients]:
    return PrivateGradients
