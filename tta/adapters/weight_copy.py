"""A second set of weights for a model: a teacher, an anchor, a snapshot."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call


class WeightCopy(nn.Module):
    """Values of a model's adapted parameters and of its buffers, kept in buffers of this module.

    Empty until :meth:`fill`. The model itself runs with them (:meth:`run`), so that no second network is held and
    passes are counted where they happen. Its state is in the state dict, moves with ``.to()`` and is restored in place.
    """

    def __init__(self) -> None:
        super().__init__()
        self._names: list[str] = []

    @property
    def filled(self) -> bool:
        """Whether it holds values."""
        return bool(self._names)

    def fill(self, model: nn.Module) -> None:
        """Take over the values that the model has now, of parameters that require gradients and of all buffers.

        Does nothing when it is filled already, so that ``prepare`` may call it again.

        Args:
            model: The prepared model.
        """
        if self._names:
            return
        for number, (name, value) in enumerate(copied(model).items()):
            self._names.append(name)
            self.register_buffer(f"value{number}", value)

    def values(self) -> dict[str, Tensor]:
        """The values by the names that they have in the model."""
        return dict(zip(self._names, self.buffers(recurse=False), strict=True))

    def run(self, model: nn.Module, x: Tensor) -> Tensor:
        """What the model returns for ``x`` with these values in place of its own, in its present modes.

        Layers that update running statistics update the values here, not those of the model.

        Args:
            model: The model that it was filled from.
            x: Images, shape ``(B, ...)``.

        Returns:
            Logits, shape ``(B, C)``, as the model gives them.
        """
        logits: Tensor = functional_call(model, self.values(), (x,))
        return logits

    @torch.no_grad()
    def run_frozen(self, model: nn.Module, x: Tensor) -> Tensor:
        """As :meth:`run`, without gradients, every module in eval mode; modes are put back.

        Args:
            model: The model that it was filled from.
            x: Images, shape ``(B, ...)``.

        Returns:
            Logits, shape ``(B, C)``, as the model gives them.
        """
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            return self.run(model, x)
        finally:
            for module, mode in modes:
                module.training = mode

    @torch.no_grad()
    def follow(self, model: nn.Module, momentum: float) -> None:
        r"""Moving average over the model's parameters, not its buffers: :math:`v \leftarrow m\,v + (1-m)\,\theta`.

        Args:
            model: The model that it was filled from.
            momentum: :math:`m`, in ``[0, 1]``.
        """
        mine = self.values()
        for name, parameter in model.named_parameters():
            if name in mine:
                # Not a sum of two products: equal weights must stay equal.
                mine[name].lerp_(parameter.detach(), 1.0 - momentum)

    @torch.no_grad()
    def copy_from(self, other: "WeightCopy") -> None:
        """Take over the values of another copy of the same model, in place."""
        for mine, theirs in zip(self.buffers(recurse=False), other.buffers(recurse=False), strict=True):
            mine.copy_(theirs)

    def write_to(self, model: nn.Module) -> None:
        """Write the values into the model, in place."""
        write_back(model, self.values())


def changeable(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Everything in a model that a stream may change, by name: parameters that require gradients, and buffers."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter
    yield from model.named_buffers()


def copied(model: nn.Module) -> dict[str, Tensor]:
    """The present values of :func:`changeable`, by name."""
    return {name: tensor.detach().clone() for name, tensor in changeable(model)}


@torch.no_grad()
def write_back(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Write values of parameters and buffers into a model, in place, on whatever device they are."""
    targets = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in values.items():
        targets[name].copy_(value)
