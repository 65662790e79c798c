"""What may go wrong in a stream, for every method of ``tta.list_adapters()``: nothing of it reaches the weights.

Non-finite pixels and non-finite gradients are in ``test_contract.py``.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.adapters.registry import adapter_class

Build = Callable[..., tta.OnlineModel]
State = Callable[[tta.OnlineModel], dict[str, Any]]


class Small(nn.Module):
    """A network for images of any size that takes thousands of them in no time."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), norm(8), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), norm(8), nn.ReLU())
        self.layer3 = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), norm(16), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.layer3(self.layer2(self.layer1(x)))).flatten(1))


NORMS: dict[str, Callable[[int], nn.Module]] = {"bn": nn.BatchNorm2d, "gn": lambda width: nn.GroupNorm(2, width)}


def cases() -> list[tuple[str, str]]:
    needs = {name: adapter_class(name).facts.needs_batch_norm for name in tta.list_adapters()}
    return [(name, kind) for name in needs for kind in NORMS if kind == "bn" or not needs[name]]


every_case = pytest.mark.parametrize(("name", "kind"), cases())


@pytest.fixture
def make(build: Build, stream: list[Tensor]) -> Build:
    """Maker of an online model of the small network, at home in the stream's statistics and unsure of its classes."""

    def of_small(name: str, kind: str, **arguments: Any) -> tta.OnlineModel:
        torch.manual_seed(0)
        model = Small(NORMS[kind])
        with torch.no_grad():
            for _ in range(20):
                model(torch.cat(stream))
        return build(name, kind, model=model.eval(), **arguments)

    return of_small


def sane(online: tta.OnlineModel) -> bool:
    tensors = (*online.model.parameters(), *online.model.buffers(), *online.adapter.parameters())
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


UNUSUAL: dict[str, Callable[[Tensor], Tensor]] = {
    "all black": torch.zeros_like,
    "all white": torch.ones_like,
    "one image six times": lambda x: x[:1].expand_as(x).contiguous(),
    "negative": lambda x: -x,
    "as bytes": lambda x: 255 * x,
    "huge": lambda x: 1e20 * x,
    "beyond float32": lambda x: 3e38 * (x - 0.5).sign(),
    "another size": lambda x: x[:, :, :20, :24],
    "a batch of one": lambda x: x[:1],
}


def answer(online: tta.OnlineModel, x: Tensor) -> tuple[int, ...] | int:
    """Shape of the logits, or the lines of the error."""
    try:
        return tuple(online(x).shape)
    except tta.InputError as error:
        return len(str(error).splitlines())


@every_case
def test_unusual_batches_leave_everything_finite(make: Build, stream: list[Tensor], name: str, kind: str) -> None:
    """Each is predicted, or refused in one line; the batches after it are predicted and learnt from."""
    online = make(name, kind)
    for what, change in UNUSUAL.items():
        x = change(stream[0])
        assert answer(online, x) in ((len(x), 10), 1), what
        assert sane(online), what
        assert torch.isfinite(online(stream[1])).all(), what
    online.reset()
    assert torch.equal(online(stream[0]), make(name, kind)(stream[0]))


@every_case
def test_one_class_alone_leaves_everything_finite(
    make: Build, digits: tuple[Tensor, Tensor], name: str, kind: str
) -> None:
    online = make(name, kind)
    for x in digits[0][digits[1] == 3][:48].split(6):
        assert torch.isfinite(online(x)).all()
    assert sane(online)


HUGE = {"memo": 256, "note": 256, "rotta": 512, "sade": 512}
"""Methods that take their images one by one at some point: fewer of them are enough to wait for."""


@pytest.mark.parametrize("name", tta.list_adapters())
def test_a_huge_batch_is_predicted(make: Build, digits: tuple[Tensor, Tensor], name: str) -> None:
    online = make(name, "bn")
    x = digits[0].repeat(3, 1, 1, 1)[: HUGE.get(name, 4096)]
    logits = online(x)
    assert logits.shape == (len(x), 10)
    assert torch.isfinite(logits).all()
    assert sane(online)


FROM_FEATURES = ("metadmoe",)
"""Learn from features, whatever the logits are: as their documentation says."""


class Overflow:
    """A hook of the head that spoils the logits of finite images."""

    on = False

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output * float("nan") if self.on else output


@every_case
def test_logits_that_are_not_finite_teach_nothing(make: Build, stream: list[Tensor], name: str, kind: str) -> None:
    online, overflow = make(name, kind), Overflow()
    for head in online.model.modules():
        if isinstance(head, nn.Linear):
            head.register_forward_hook(overflow)
    online(stream[0])
    weights = [parameter.clone() for parameter in online.model.parameters()]
    overflow.on = True
    online(stream[1])
    overflow.on = False
    if not online.resets and name not in FROM_FEATURES:
        assert all(torch.equal(a, b) for a, b in zip(weights, online.model.parameters(), strict=True))
    assert sane(online)
    for x in stream[2:]:
        assert torch.isfinite(online(x)).all()
    assert sane(online)


class OutOfMemory:
    """A hook of the model that fails at the ``at``-th forward pass."""

    def __init__(self) -> None:
        self.at: int | None = None
        self.seen = 0

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        self.seen += 1
        if self.seen == self.at:
            raise torch.OutOfMemoryError("out of memory")


@every_case
def test_a_pass_that_fails_leaves_the_weights_and_the_batch_can_come_again(
    make: Build, stream: list[Tensor], name: str, kind: str
) -> None:
    """Whichever of the passes of a batch it is: what SAR, say, puts into the weights for its second is out again.

    A method that takes several steps per batch, or predicts after its step, keeps those taken before the failure; so
    does one under a guard, whose checks come after its step.
    """
    passes = _passes(make(name, kind), stream)
    for number in range(1, passes + 1):
        online, failure = make(name, kind), OutOfMemory()
        online.model.register_forward_pre_hook(failure)
        online(stream[0])
        weights = [parameter.clone() for parameter in online.model.parameters()]
        failure.seen, failure.at = 0, number
        with pytest.raises(torch.OutOfMemoryError):
            online(stream[1])
        facts = online.adapter.facts
        if name != "guard" and facts.steps_per_batch < 2 and not facts.predicts_after:
            assert all(torch.equal(a, b) for a, b in zip(weights, online.model.parameters(), strict=True)), number
        assert torch.isfinite(online(stream[1])).all()
        assert all(parameter.grad is None for parameter in online.model.parameters())


def _passes(online: tta.OnlineModel, stream: list[Tensor]) -> int:
    counter = OutOfMemory()
    online.model.register_forward_pre_hook(counter)
    online(stream[0])
    counter.seen = 0
    online(stream[1])
    return counter.seen
