"""A classifier head that compares directions only."""

import torch.nn.functional as F
from torch import Tensor, nn

from tta.errors import InputError


class CosineHead(nn.Module):
    """Logits that are scaled cosines: ``scale * <h / |h|, w_k / |w_k|>``, without a bias.

    The norm of a class's weights, which long-tailed training makes large for frequent classes, does not count.

    Args:
        in_features: Size ``D`` of the features.
        num_classes: Number of classes, ``C``.
        scale: Largest absolute logit, above 0.

    Raises:
        InputError: If the scale is not positive.

    References:
        Self-Supervised Aggregation of Diverse Experts (SADE), NeurIPS 2022, https://arxiv.org/abs/2107.09249; its
        released configurations have this head with scale 30. Differs from the authors' code: the weight is stored as
        ``(C, D)``, as ``nn.Linear`` does.
    """

    def __init__(self, in_features: int, num_classes: int, scale: float = 30.0) -> None:
        super().__init__()
        if not scale > 0.0:
            raise InputError(f"scale={scale}: the scale of a cosine head is positive, such as 30")
        self.scale = scale
        linear = nn.Linear(in_features, num_classes, bias=False)
        nn.init.uniform_(linear.weight, -1.0, 1.0)
        self.weight = nn.Parameter(F.normalize(linear.weight.detach(), dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """Logits, shape ``(B, C)``, in ``[-scale, scale]``, of features ``(B, D)``."""
        return self.scale * F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))
