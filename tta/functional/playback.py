"""Outputs of frozen layers, recorded in one pass through a model and given in place of the layers in another."""

from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable
from torch.nn.grad import conv1d_input, conv2d_input, conv3d_input
from torch.overrides import TorchFunctionMode

CONVOLUTIONS: dict[Any, Callable[..., Tensor]] = {
    F.conv1d: conv1d_input,
    F.conv2d: conv2d_input,
    F.conv3d: conv3d_input,
}
"""Convolutions, and what takes a gradient back to their input."""

LAYERS = (F.linear, *CONVOLUTIONS, F.multi_head_attention_forward)
"""What costs the most. Attention of this kind is one call, with linear layers inside, and is not played back."""


@dataclass(frozen=True)
class Output:
    """The output of a frozen layer, batch first; ``below``: no trained parameter was used before it."""

    value: Tensor
    version: int
    below: bool

    @property
    def intact(self) -> bool:
        """Whether nothing was written into it since it was recorded."""
        return self.value._version == self.version

    def of(self, rows: Tensor) -> "Output | None":
        """A copy of some rows; ``None`` if it is not intact."""
        return Output(self.value.index_select(0, rows), 0, self.below) if self.intact else None


Outputs = dict[nn.Parameter, deque[Output | None]]
"""By weight, an entry for each call of its layer, in order; ``None`` for a call that cannot be played back."""


class _Calls(TorchFunctionMode, ABC):
    """Within it, torch's functions are called by :meth:`call`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  whatever the function returns
        return self.call(func, args, kwargs or {})

    @abstractmethod
    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """What the function returns, or what is to stand for it."""


class Recorder(_Calls):
    """Keeps the outputs of frozen layers, by weight, in the order of their calls."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.outputs: Outputs = defaultdict(deque)
        self._size = size
        self._below = True

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """What the function returns; kept if it is a frozen layer."""
        result = func(*args, **kwargs)
        if any(isinstance(value, Tensor) and value.requires_grad for value in (*args, *kwargs.values())):
            self._below = False
        layer = _frozen_layer(func, args, kwargs)
        if layer is not None:
            whole = len(layer["input"]) == len(result) == self._size
            output = Output(result, result._version, self._below) if whole else None
            self.outputs[layer["weight"]].append(output)
        return result


class Player(_Calls):
    """Gives rows of recorded outputs in place of layers; each output is taken from its queue as it is used.

    Attributes:
        still_valid: After a run, outputs of layers below the first trained one.
    """

    def __init__(self, outputs: Outputs) -> None:
        super().__init__()
        self.still_valid: Outputs = defaultdict(deque)
        self._outputs = outputs
        self._start = self._size = 0
        self._played = self._computed = 0

    @property
    def complete(self) -> bool:
        """Whether every layer so far came from the record, and at least one."""
        return self._played > 0 and self._computed == 0

    def run(self, model: nn.Module, x: Tensor, start: int) -> Tensor:
        """The logits of ``x``, whose rows in the outputs begin at ``start``."""
        self._start, self._size = start, len(x)
        with torch.enable_grad(), self:
            logits: Tensor = model(x)
        return logits

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """What was recorded, or what the function returns where nothing was."""
        layer = _frozen_layer(func, args, kwargs)
        rows = None if layer is None else self._recorded_rows(layer)
        if layer is None or rows is None:
            self._computed += func in LAYERS
            return func(*args, **kwargs)
        self._played += 1
        if not layer["input"].requires_grad:
            return rows
        if func is F.linear:
            return _PlayedLinear.apply(layer["input"], layer["weight"], (rows,))
        return _PlayedConvolution.apply(layer["input"], layer, CONVOLUTIONS[func], (rows,))

    def _recorded_rows(self, layer: Mapping[str, Any]) -> Tensor | None:
        queue = self._outputs.get(layer["weight"])
        output = queue.popleft() if queue else None
        if output is not None and not (output.intact and len(layer["input"]) == self._size):
            output = None
        below = output is not None and output.below and not layer["input"].requires_grad
        self.still_valid[layer["weight"]].append(output if below else None)
        if output is None:
            return None
        # Not a view to autograd, which would take it for a part of something else.
        return output.value.narrow(0, self._start, self._size).data


def _frozen_layer(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments, by name, of a call to a linear layer or convolution with frozen parameters; else ``None``."""
    if func is not F.linear and func not in CONVOLUTIONS:
        return None
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    layer: dict[str, Any] = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    layer |= {**dict(zip(names, args, strict=False)), **kwargs}
    trained = any(layer[name] is not None and layer[name].requires_grad for name in ("weight", "bias"))
    if trained or not isinstance(layer["weight"], nn.Parameter) or isinstance(layer["padding"], str):
        return None
    return layer


# The recorded rows come in a tuple, so that autograd takes them for an output that was just computed.


class _PlayedLinear(Function):
    """A linear layer whose output is known; only its input has a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, output: tuple[Tensor]) -> Tensor:  # noqa: ANN401  torch's own
        ctx.weight = weight
        return output[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return gradient @ ctx.weight.to(gradient.dtype), None, None


class _PlayedConvolution(Function):
    """A convolution whose output is known; only its input has a gradient."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  torch's own
        x: Tensor,
        layer: Mapping[str, Any],
        input_gradient: Callable[..., Tensor],
        output: tuple[Tensor],
    ) -> Tensor:
        ctx.weight, ctx.input_gradient, ctx.shape = layer["weight"], input_gradient, x.shape
        ctx.geometry = [layer[name] for name in ("stride", "padding", "dilation", "groups")]
        return output[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        weight = ctx.weight.to(gradient.dtype)
        return ctx.input_gradient(ctx.shape, weight, gradient, *ctx.geometry), None, None, None
