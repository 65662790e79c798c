"""Bounded sets of samples per class, those of lowest entropy."""

import torch
from torch import Tensor


def support_replacements(stored: Tensor, entropies: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which new samples enter the supports of their class, and whose places they take.

    Afterwards every class holds the samples of lowest entropy among those it had and the new ones. At equal entropy
    the one that came earlier stays.

    Args:
        stored: Entropies of the ``M`` supports of every class, shape ``(C, M)``; infinite where a place is free.
        entropies: Of the new samples, shape ``(N,)``, finite.
        labels: Their classes, shape ``(N,)``, int64.

    Returns:
        Places, as indices into the flattened ``stored``, and the new samples that go there, as indices into
        ``entropies``; both of shape ``(R,)``, int64, ``R <= N``.
    """
    size = stored.shape[1]
    classes, new_owner = torch.unique(labels, return_inverse=True)
    old_owner = torch.arange(len(classes), device=labels.device).repeat_interleave(size)
    owner = torch.cat([old_owner, new_owner])
    order = torch.cat([stored[classes].flatten(), entropies]).argsort(stable=True)
    order = order[owner[order].argsort(stable=True)]
    count = owner.bincount(minlength=len(classes))
    rank = torch.arange(len(order), device=labels.device) - (count.cumsum(0) - count)[owner[order]]
    staying, leaving = order[rank < size], order[rank >= size]
    entering = staying[staying >= len(old_owner)] - len(old_owner)
    # As many places of a class are left as samples enter it, and both are in the order of the classes.
    left = leaving[leaving < len(old_owner)]
    return classes[left // size] * size + left % size, entering
