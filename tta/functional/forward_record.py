"""A forward pass without a graph, from which the graph of some of its samples can be built at next to no cost."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor, nn

from tta.functional.chunks import chunks
from tta.functional.playback import Player, Recorder

T = TypeVar("T")


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
        complete: Whether the last :meth:`graph` took every linear layer and convolution from the record.

    Args:
        model: The model.
        x: Images, shape ``(B, ...)``.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self._model = model
        self._x = x
        self._narrowed = False
        self.complete = False
        recorder = Recorder(len(x))
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
        rows = chosen.nonzero().squeeze(1)
        if not self._narrowed:
            self._narrow(rows)
        logits, start, self.complete = [], 0, True
        for part in chunks(rows, self._x[0].numel()):
            is_last = start + len(part) == len(rows)  # which lets go of each output once it is used
            queues = self._outputs if is_last else {weight: deque(queue) for weight, queue in self._outputs.items()}
            player = Player(queues)
            with _set(_playing, player):
                logits.append(player.run(self._model, self._x[part], start))
            start += len(part)
            self.complete = self.complete and player.complete
        self._outputs = player.still_valid
        return torch.cat(logits)

    def _narrow(self, rows: Tensor) -> None:
        """Keep only some rows of each output, letting go of the whole ones one by one."""
        self._narrowed = True
        if len(rows) == len(self._x):
            return
        for queue in self._outputs.values():
            for _ in range(len(queue)):
                output = queue.popleft()
                queue.append(None if output is None else output.of(rows))
                del output


_playing: ContextVar[Player | None] = ContextVar("playing", default=None)
_checking: ContextVar[bool] = ContextVar("checking", default=False)


def played_back() -> bool:
    """Whether the pass that a model has just made ran from a record alone, at next to no cost."""
    player = _playing.get()
    return player is not None and player.complete


def checking() -> bool:
    """Whether passes that a model makes just now are a mere look at how it behaves."""
    return _checking.get()


@contextmanager
def a_check() -> Iterator[None]:
    """Within the context, passes are a mere look at how a model behaves, and no cost of a method."""
    with _set(_checking, True):
        yield


@contextmanager
def _set(variable: ContextVar[T], value: T) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
