"""What adaptation costs: passes counted where they happen, not where they are declared."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tta.functional.forward_record import checking, played_back


class CostMeter:
    """Counts samples that go forward and backward through a model.

    A backward pass is counted when gradients arrive at the model's output, so every sample in the graph counts,
    whether or not its gradient is zero. A graph built from a :class:`~tta.functional.ForwardRecord` counts as no
    forward pass, as long as all frozen layers come from the record.

    Attributes:
        forwards: Samples sent forward.
        backwards: Samples sent backward.

    Args:
        model: The model to watch; watched until :meth:`detach`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.forwards = 0
        self.backwards = 0
        self._handle = model.register_forward_hook(self._count)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the context, passes are not counted."""
        before = self.forwards, self.backwards
        try:
            yield
        finally:
            self.forwards, self.backwards = before

    def detach(self) -> None:
        """Stop watching."""
        self._handle.remove()

    def _count(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
        if not isinstance(output, Tensor) or checking():
            return
        if not played_back():
            self.forwards += len(output)
        if output.requires_grad:
            output.register_hook(self._count_backward)  # type: ignore[no-untyped-call]

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: allocated on a GPU, resident of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
