"""Passes of part of a batch."""

from collections.abc import Callable

from torch import Tensor, nn

from tta.adapters.base import is_too_few


def subset_logits(model: nn.Module, x: Tensor, rows: Tensor, view: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits of views of some images of a batch.

    Only those images go through the model, so that batch normalisation that uses batch statistics takes theirs. Where
    they leave one value per channel, which has no variance, views of the whole batch go through instead.

    Args:
        model: The classifier.
        x: Images, shape ``(B, ...)``, a batch that the model takes.
        rows: Which images, shape ``(B,)``, bool, at least one.
        view: From images to views of them, in the same order; called once or twice.

    Returns:
        Logits of the views of ``x[rows]``.
    """
    try:
        logits: Tensor = model(view(x[rows]))
    except ValueError as error:
        if not is_too_few(error):
            raise
        logits = model(view(x))[rows]
    return logits
