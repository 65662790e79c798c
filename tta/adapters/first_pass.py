"""The first pass over a batch, of which only some samples turn out to teach."""

from typing import Protocol

import torch
from torch import Tensor, nn

from tta.adapters.base import Updater, checked_logits
from tta.functional.chunks import in_chunks
from tta.functional.forward_record import ForwardRecord, a_check
from tta.functional.independence import same_logits, uses_batch_statistics

LIMIT_PLAYED = 0.75
"""Share of samples that teach from which on a graph over the whole batch costs less than one built from a record."""

LIMIT_COMPUTED = 0.4
"""The same where layers cannot be played back, so that building the graph takes another forward pass."""


class FirstPass(Protocol):
    """Predictions of a batch, and graphs over the samples that teach.

    Attributes:
        logits: Shape ``(B, C)``, float32, detached.
    """

    logits: Tensor

    def graph(self, chosen: Tensor) -> Tensor:
        """Logits of the chosen samples, shape ``(S, C)``, on a graph.

        Args:
            chosen: Which samples, shape ``(B,)``, bool; may be none, for a graph that contributes zero.
        """

    def again(self, chosen: Tensor) -> Tensor:
        """The same after the parameters changed: another pass. Call it after :meth:`graph`, for the same samples."""


class WholePass:
    """A pass with a graph over the whole batch.

    Args:
        model: The prepared classifier.
        x: Images, shape ``(B, ...)``.
        independent: Whether the model treats samples independently, so that another pass may leave some out.
    """

    def __init__(self, model: nn.Module, x: Tensor, independent: bool) -> None:
        self._model = model
        self._x = x
        self._independent = independent
        with torch.enable_grad():
            self._logits: Tensor = in_chunks(model, x) if independent else model(x)
        self.logits = checked_logits(self._logits)

    def graph(self, chosen: Tensor) -> Tensor:
        """Logits of the chosen samples on the graph of the whole batch, which is let go."""
        with torch.enable_grad():
            logits = self._logits[chosen]
        del self._logits
        return logits

    def again(self, chosen: Tensor) -> Tensor:
        """Another pass, over the chosen samples alone where samples are independent."""
        with torch.enable_grad():
            if not self._independent:
                logits: Tensor = self._model(self._x)[chosen]
                return logits
            logits = in_chunks(self._model, self._x[at_least_one(chosen)])
            return logits[: int(chosen.sum())]


class RecordedPass:
    """A pass without a graph; graphs are built over the chosen samples alone.

    Args:
        model: The prepared classifier, which treats samples independently.
        x: Images, shape ``(B, ...)``.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self._record = ForwardRecord(model, x)
        self.logits = checked_logits(self._record.logits)

    def graph(self, chosen: Tensor) -> Tensor:
        """Logits of the chosen samples on a graph of their own."""
        return self._record.graph(at_least_one(chosen))[: int(chosen.sum())]

    again = graph


class FirstPasses(nn.Module):
    """Takes the first pass over each batch in the way that costs least.

    Where a model treats samples independently, a graph need only be built over those that teach
    (:class:`~tta.functional.ForwardRecord`). It pays as long as they are few, which the running share of past batches
    tells. The choice depends on that share alone, not on the clock, so that two runs agree to the last bit.

    The first batch of two samples or more shows, at the cost of passes over four images, whether the model treats
    samples independently, and whether its layers can be played back. Networks with batch statistics always have a graph
    over the whole batch.
    """

    share: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("share", torch.tensor(torch.nan))
        self._limit: float | None = None

    def prepare(self) -> None:
        """Look at the model anew: its modes or parts may have changed."""
        self._limit = None

    def reset(self) -> None:
        """Forget the running share."""
        self.share.fill_(torch.nan)

    def take(self, model: nn.Module, x: Tensor) -> FirstPass:
        """Pass a batch through the model.

        Args:
            model: The prepared classifier.
            x: Images, shape ``(B, ...)``, ``B >= 1``.

        Raises:
            InputError: If the model returns no logits of shape ``(B, C)``.
        """
        if self._limit is None and len(x) > 1:
            self._limit = share_limit(model, x[:1])
        limit = self._limit or 0.0
        if len(x) == 1 or limit == 0.0 or bool(self.share > limit):
            return WholePass(model, x, independent=limit > 0.0)
        return RecordedPass(model, x)

    def observe(self, chosen: Tensor, updater: Updater) -> None:
        """Take note of which samples of a batch teach, if any does, over all processes.

        Args:
            chosen: Shape ``(S,)``, bool; of no samples where a process has none to adapt to.
            updater: Way to the other processes.
        """
        counts = torch.stack([chosen.sum(), chosen.new_tensor(len(chosen), dtype=torch.int64)]).float()
        taught, seen = updater.mean(counts)
        if taught > 0:
            share = taught / seen
            self.share.copy_(torch.where(self.share.isnan(), share, 0.9 * self.share + 0.1 * share))


def share_limit(model: nn.Module, x: Tensor) -> float:
    """Share of samples that teach up to which graphs of their own pay; 0 where they cannot be built, or not rightly.

    They cannot where the model mixes samples, draws random numbers, checkpoints activations, is compiled, returns
    something else than logits of shape ``(B, C)``, or refuses one or two images.

    Args:
        model: The prepared classifier.
        x: An image, shape ``(1, ...)``.
    """
    if uses_batch_statistics(model) or is_compiled(model):
        return 0.0
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices), a_check():
        try:
            return _tried_out(model, x)
        except Exception:  # noqa: BLE001  whatever a foreign model raises: if it matters, the plain pass raises it too
            return 0.0


def _tried_out(model: nn.Module, x: Tensor) -> float:
    before = _random_state(x.device)
    record = ForwardRecord(model, torch.cat([x + 1.0, x]))
    with torch.no_grad():
        alone = model(x)
    played = record.graph(torch.tensor([False, True], device=x.device))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.autograd.grad(played.sum(), trained, allow_unused=True)
    together = record.logits[1:]
    rightly = together.dim() == 2 and same_logits(together, alone) and same_logits(together, played)
    if not rightly or not torch.equal(before, _random_state(x.device)):
        return 0.0
    return LIMIT_PLAYED if record.complete else LIMIT_COMPUTED


def _random_state(device: torch.device) -> Tensor:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)


def is_compiled(model: nn.Module) -> bool:
    """Whether a model or a part of it is compiled by ``torch.compile``, which fixes shapes and what runs."""
    compiled = torch._dynamo.OptimizedModule
    return any(isinstance(module, compiled) or module._compiled_call_impl is not None for module in model.modules())


def at_least_one(chosen: Tensor) -> Tensor:
    """The chosen samples, or the first one if there are none: layers may not take an empty batch."""
    if bool(chosen.any()):
        return chosen
    first = torch.zeros_like(chosen)
    first[0] = True
    return first


def nobody(x: Tensor) -> Tensor:
    """Of no sample, whether it teaches: shape ``(0,)``, bool, on the device of ``x``."""
    return torch.zeros(0, dtype=torch.bool, device=x.device)
