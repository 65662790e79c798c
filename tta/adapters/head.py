"""The last linear layer of a classifier, and the features that enter it."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from tta.errors import InputError


def linear_head(model: nn.Module, name: str | None = None) -> nn.Linear:
    """The layer that turns features into logits.

    Args:
        model: The classifier.
        name: Name of the layer; the last ``nn.Linear`` in registration order by default, which is the head of timm's
            and torchvision's networks.

    Returns:
        The layer: weight ``(C, D)``, bias ``(C,)`` or ``None``.

    Raises:
        InputError: If there is no such layer, or it is not linear.
    """
    found = {key: layer for key, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    if name is None:
        if not found:
            raise InputError(f"{type(model).__name__} has no linear layer that could be its head")
        return list(found.values())[-1]
    if name not in found:
        some = ", ".join(list(found)[-5:]) or "none"
        raise InputError(f"head={name!r}: no linear layer of that name; the last ones are {some}")
    return found[name]


@contextmanager
def features_of(head: nn.Linear) -> Iterator[list[Tensor]]:
    """Collect what enters the head in the forward passes within the context.

    Args:
        head: A layer of :func:`linear_head`.

    Yields:
        A list that grows by a tensor ``(B, D)`` per pass, on the graph of that pass.
    """
    features: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    try:
        yield features
    finally:
        handle.remove()
