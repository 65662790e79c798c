"""The last linear layer of a classifier, and the features that enter it."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile

from torch import Tensor, nn

from tta.adapters.base import checked_logits
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


def parallel_heads(model: nn.Module) -> list[nn.Linear]:
    """The head, and those beside it, as distilled vision transformers have two and ensembles one per network.

    Args:
        model: The classifier.

    Returns:
        The last linear layer, and those before it in a row that turn as many features into as many classes. Alone
        where these two numbers are equal, as such layers could follow each other.

    Raises:
        InputError: If there is no linear layer.
    """
    head = linear_head(model)
    size = (head.in_features, head.out_features)
    if size[0] == size[1]:
        return [head]
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    return list(takewhile(lambda layer: (layer.in_features, layer.out_features) == size, reversed(layers)))


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


def logits_and_features(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the classifier returns and what enters its head, of one forward pass.

    Args:
        model: The classifier.
        x: Images, shape ``(B, ...)``.

    Returns:
        Logits ``(B, C)`` and features ``(B, D)``, both float32 and detached.

    Raises:
        InputError: If the head is not used, or does not take one feature vector per image.
    """
    head = linear_head(model)
    with features_of(head) as features:
        logits = checked_logits(model(x))
    if not features or features[-1].shape != (len(x), head.in_features):
        got = f"got features of shape {tuple(features[-1].shape)}" if features else "was not used"
        raise InputError(
            f"the last linear layer of {type(model).__name__} {got}: it must be the head, which takes features of "
            f"shape {(len(x), head.in_features)}"
        )
    return logits, features[-1].detach().float()
