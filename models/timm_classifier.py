"""Any timm network as a classifier of images in [0, 1]."""

import difflib
from collections.abc import Sequence
from typing import Any

import timm
from torch import Tensor, nn

from models.normalize import Normalize
from tta.errors import InputError, first_line


class TimmClassifier(nn.Module):
    """A timm network with its input normalisation inside.

    Args:
        name: A name of ``timm.list_models()``, with its pretraining tag where weights matter, such as
            ``vit_base_patch16_224.augreg_in21k_ft_in1k``: a bare name may change its weights with timm's version.
        num_classes: Size of the classifier's output.
        pretrained: Load timm's weights from its hub, at run time.
        mean: Normalisation mean per channel; the network's own by default.
        std: Normalisation standard deviation per channel; the network's own by default.
        arguments: Further keyword arguments of ``timm.create_model``, such as ``img_size``.

    Raises:
        InputError: For an unknown name, or if pretrained weights cannot be had.
    """

    def __init__(
        self,
        name: str,
        num_classes: int = 1000,
        pretrained: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not timm.is_model(name.split(".")[0]):
            close = difflib.get_close_matches(name, timm.list_models(), n=3)
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            raise InputError(f"unknown timm model {name!r}: see timm.list_models(){hint}")
        try:
            self.network = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **(arguments or {}))
        except (OSError, RuntimeError) as error:
            if not pretrained:
                raise
            raise InputError(
                f"cannot load timm's weights of {name!r} ({first_line(error)}): give pretrained=false and a local file "
                "as --model.weights"
            ) from error
        own: dict[str, Any] = self.network.pretrained_cfg  # type: ignore[assignment]
        self.normalize = Normalize(mean or own["mean"], std or own["std"])

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(B, num_classes)``, of images ``(B, C, H, W)`` in ``[0, 1]``."""
        logits: Tensor = self.network(self.normalize(x))
        return logits
