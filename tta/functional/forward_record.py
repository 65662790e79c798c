"""A forward pass without a graph, from which the graph of some of its samples can be built at next to no cost."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable
from torch.nn.grad import conv1d_input, conv2d_input, conv3d_input
from torch.overrides import TorchFunctionMode

from tta.functional.chunks import chunks

CONVOLUTIONS: dict[Any, Callable[..., Tensor]] = {
    F.conv1d: conv1d_input,
    F.conv2d: conv2d_input,
    F.conv3d: conv3d_input,
}
"""Convolutions, and what takes a gradient back to their input."""


@dataclass(frozen=True)
class _Output:
    """The output of a frozen layer for a whole batch; ``below``: no trained parameter was used before it."""

    value: Tensor
    version: int
    below: bool

    @property
    def intact(self) -> bool:
        return self.value._version == self.version


Outputs = dict[nn.Parameter, deque[_Output]]


class ForwardRecord:
    r"""The logits of a batch, and what it takes to build the graph of some of its samples later.

    The forward pass runs without a graph and keeps the outputs of the layers that cost the most, linear layers and
    convolutions, where these are frozen. :meth:`graph` sends the chosen samples through the model once more with
    those outputs in place of the layers: only what is cheap (normalisation, activations, attention) is computed again,
    and the gradient is that of an ordinary pass over the chosen samples. With :math:`F` and :math:`B` the cost of a
    forward and a backward pass, a share :math:`r` of samples that teach costs about :math:`F + rB`, where a graph over
    the whole batch costs :math:`F + B`.

    The model must treat samples independently and alike, and draw no random numbers. Layers whose recorded output is
    missing, of another shape, or was written to since, as by an activation that works in place, are computed again,
    and so are layers with a trained weight or bias, and scripted and compiled parts.

    Attributes:
        logits: What the model returned, without a graph.
        complete: Whether the last :meth:`graph` computed no frozen layer again.

    Args:
        model: The model.
        x: Images, shape ``(B, ...)``.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self._model = model
        self._x = x
        self.complete = False
        recorder = _Recorder(len(x))
        with torch.no_grad(), recorder:
            self.logits: Tensor = model(x)
        self._outputs = dict(recorder.outputs)

    def graph(self, chosen: Tensor) -> Tensor:
        """Logits of some samples, on a graph that reaches all trained parameters.

        That uses the record up: a second call, after parameters changed, is an ordinary forward pass with a graph, but
        for the layers below the first trained one, whose outputs are still those of the record.

        Args:
            chosen: Which samples, shape ``(B,)``, bool, at least one, the same ones in a second call.

        Returns:
            Logits, shape ``(S, C)``.
        """
        *parts, last = chunks(chosen.nonzero().squeeze(1))
        logits = [self._part(rows, {weight: deque(queue) for weight, queue in self._outputs.items()}) for rows in parts]
        logits.append(self._part(last, self._outputs))
        self._outputs = self._still_valid
        return torch.cat(logits)

    def _part(self, rows: Tensor, outputs: Outputs) -> Tensor:
        player = _Player(outputs, rows, len(self._x))
        with torch.enable_grad(), _set(_played, player), player:
            logits: Tensor = self._model(self._x[rows])
        self._still_valid, self.complete = player.still_valid, player.complete
        return logits


_played: ContextVar["_Player | None"] = ContextVar("played", default=None)
_checking: ContextVar[bool] = ContextVar("checking", default=False)


def played_back() -> bool:
    """Whether the pass that a model has just made ran from a record alone, at next to no cost."""
    player = _played.get()
    return player is not None and player.complete


def checking() -> bool:
    """Whether passes that a model makes just now are a mere look at how it behaves."""
    return _checking.get()


@contextmanager
def a_check() -> Iterator[None]:
    """Within the context, passes are a mere look at how a model behaves, and no cost of a method."""
    with _set(_checking, True):
        yield


T = TypeVar("T")


@contextmanager
def _set(variable: ContextVar[T], value: T) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


class _Recorder(TorchFunctionMode):
    """Keeps the outputs of frozen layers, by weight, in the order of their calls."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.outputs: Outputs = defaultdict(deque)
        self._size = size
        self._below = True

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  whatever the function returns
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if any(isinstance(value, Tensor) and value.requires_grad for value in (*args, *kwargs.values())):
            self._below = False
        layer = _frozen_layer(func, args, kwargs)
        if layer is not None and len(layer["input"]) == len(result) == self._size:
            self.outputs[layer["weight"]].append(_Output(result, result._version, self._below))
        return result


class _Player(TorchFunctionMode):
    """Gives rows of recorded outputs in place of layers; each output is taken from its queue as it is used."""

    def __init__(self, outputs: Outputs, rows: Tensor, size: int) -> None:
        super().__init__()
        self.still_valid: Outputs = defaultdict(deque)
        self._outputs = outputs
        self._rows = rows
        self._size = size
        self._played = self._computed = 0

    @property
    def complete(self) -> bool:
        return self._played > 0 and self._computed == 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  whatever the function returns
        kwargs = kwargs or {}
        # A composite function is one call here, whatever layers it has inside.
        self._computed += func is F.multi_head_attention_forward
        layer = _frozen_layer(func, args, kwargs)
        if layer is None:
            return func(*args, **kwargs)
        rows = self._recorded_rows(layer)
        if rows is None:
            self._computed += 1
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
        if output is None or not output.intact or len(layer["input"]) != len(self._rows):
            return None
        if output.below and not layer["input"].requires_grad:
            self.still_valid[layer["weight"]].append(output)
        elif len(self._rows) == self._size:
            return output.value
        return output.value.index_select(0, self._rows)


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
