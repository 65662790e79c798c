"""A classifier of a thousand classes as one of those that a test set has."""

import pkgutil
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tta.errors import InputError

SUBSETS = ("imagenet_a", "imagenet_r")


class ClassSubset(nn.Module):
    """Keep the logits of some classes, so that predictions, entropies and figures see no others.

    ImageNet-A (https://arxiv.org/abs/1907.07174) and ImageNet-R (https://arxiv.org/abs/2006.16241) have 200 classes
    each, and are scored among these as their authors do; the lists are timm's.

    Args:
        backbone: Gives logits, shape ``(B, C)``; C is 1000, in ImageNet's order, for a named subset.
        subset: ``imagenet_a``, ``imagenet_r``, or distinct positions in ``[0, C)`` in the wanted order.

    Raises:
        InputError: If the name is unknown, or the positions are none, negative or not distinct.
    """

    indices: Tensor

    def __init__(self, backbone: nn.Module, subset: str | Sequence[int]) -> None:
        super().__init__()
        indices = _named(subset) if isinstance(subset, str) else list(subset)
        if not indices or min(indices) < 0 or len(set(indices)) < len(indices):
            raise InputError(f"subset: {indices[:5]} are not distinct positions from 0 on; give each class once.")
        self.network = backbone
        self.subset = subset
        self.register_buffer("indices", torch.tensor(indices), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the subset, shape ``(B, len(indices))``, of images ``(B, C, H, W)`` in ``[0, 1]``.

        Raises:
            InputError: If the backbone has fewer classes than the subset's positions need.
        """
        logits: Tensor = self.network(x)
        count = logits.shape[1]
        fits = count == 1000 if isinstance(self.subset, str) else count > max(self.subset)
        if not fits:
            needed = "1000" if isinstance(self.subset, str) else f"at least {max(self.subset) + 1}"
            raise InputError(f"backbone: it gives {count} logits, the subset needs {needed}; set its num_classes.")
        return logits[:, self.indices]


def _named(subset: str) -> list[int]:
    if subset not in SUBSETS:
        raise InputError(f"subset: {subset!r} is unknown; choose from {', '.join(SUBSETS)}, or give positions.")
    listed = pkgutil.get_data("timm.data", f"_info/{subset}_indices.txt")
    return [int(line) for line in (listed or b"").split()]
