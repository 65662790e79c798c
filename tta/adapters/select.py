"""Choose which parameters adapt: by layer type, by depth, or by a predicate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from tta.errors import InputError

LAYER_TYPES: dict[str, type[nn.Module] | tuple[type[nn.Module], ...]] = {
    "batch_norm": _BatchNorm,
    "layer_norm": nn.LayerNorm,
    "group_norm": nn.GroupNorm,
    "instance_norm": _InstanceNorm,
    "rms_norm": nn.RMSNorm,
    "conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "linear": nn.Linear,
}
"""Names that select by ``isinstance``, so timm's subclasses (``LayerNorm2d``, ``BatchNormAct2d``) are found too."""

Predicate = Callable[[str, nn.Module], bool]


@dataclass(frozen=True)
class Select:
    """A choice of layers whose own parameters adapt.

    Args:
        types: Layer types, names of :data:`LAYER_TYPES`. Layers without parameters are passed over.
        start: Share of the matching layers, in registration order, that is left out at the input side, in ``[0, 1)``.
        stop: Share after which the rest, at the output side, is left out, in ``(0, 1]``; one layer always stays.
        predicate: If given, a layer must also satisfy ``predicate(name, layer)``. Applied before ``start``/``stop``.

    Raises:
        InputError: For an unknown type or an empty range.
    """

    types: Sequence[str] = ("batch_norm", "layer_norm", "group_norm")
    start: float = 0.0
    stop: float = 1.0
    predicate: Predicate | None = None

    def __post_init__(self) -> None:
        """Check the types and the range."""
        if isinstance(self.types, str):
            raise InputError(f"types={self.types!r}: give a list of layer types, such as [{self.types}]")
        for name in self.types:
            if name not in LAYER_TYPES:
                raise InputError(f"unknown layer type {name!r}: choose from {', '.join(LAYER_TYPES)}")
        if not 0.0 <= self.start < self.stop <= 1.0:
            raise InputError(f"start={self.start}, stop={self.stop}: need 0 <= start < stop <= 1")

    def layers(self, model: nn.Module) -> list[tuple[str, nn.Module]]:
        """Selected layers with their names, in registration order.

        Raises:
            InputError: If nothing matches; the message lists the layer types that the model has.
        """
        matching = [(name, layer) for name, layer in model.named_modules() if self._matches(name, layer)]
        first, last = int(self.start * len(matching)), int(self.stop * len(matching))
        if matching:
            return matching[first : max(first + 1, last)]
        raise InputError(f"no layer to adapt: {self} matches nothing; the model has {layer_census(model)}")

    def freeze_rest(self, model: nn.Module) -> None:
        """Let exactly the parameters of the selected layers require gradients. Idempotent."""
        chosen = {id(parameter) for _, layer in self.layers(model) for parameter in layer.parameters(recurse=False)}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in chosen)

    def _matches(self, name: str, layer: nn.Module) -> bool:
        if not any(isinstance(layer, LAYER_TYPES[kind]) for kind in self.types):
            return False
        if next(layer.parameters(recurse=False), None) is None:
            return False
        return self.predicate is None or self.predicate(name, layer)


def published_layers(name: str, layer: nn.Module) -> bool:
    """The choice of layers in the code of SAR and DeYO, a ``predicate`` of :class:`Select`.

    Goes by substrings of names made for ResNet-50 and ViT-B, whose top layers it leaves out; misfires elsewhere.
    """
    frozen = ("layer4", "blocks.9", "blocks.10", "blocks.11", "norm.")
    return name != "norm" and not any(part in name for part in frozen)


def layer_census(model: nn.Module) -> str:
    """How many layers with parameters of each selectable type a model has, in words."""
    counts = {
        kind: sum(isinstance(m, types) and next(m.parameters(recurse=False), None) is not None for m in model.modules())
        for kind, types in LAYER_TYPES.items()
    }
    found = [f"{count} {kind}" for kind, count in counts.items() if count]
    return ", ".join(found) if found else "no layer of a selectable type"
