"""Does a classifier fit its data?"""

from collections.abc import Callable

import torch
from torch import Tensor

from tta.errors import InputError, first_line


def checked_forward(backbone: Callable[[Tensor], Tensor], images: Tensor, num_classes: int) -> Tensor:
    """Logits, or one line about why there are none.

    Args:
        backbone: The classifier.
        images: Images, shape ``(B, ...)``.
        num_classes: Number of classes that the data has.

    Returns:
        Logits, shape ``(B, num_classes)``.

    Raises:
        InputError: If the model cannot take such images, or gives another number of classes.
    """
    try:
        logits = backbone(images)
    except (InputError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        shape = tuple(images.shape[1:])
        raise InputError(f"the backbone cannot take images of shape {shape}: {first_line(error)}") from error
    if logits.dim() != 2 or logits.shape[1] != num_classes:
        raise InputError(
            f"the backbone gives an output of shape {tuple(logits.shape)} and the data has {num_classes} classes: set "
            "the backbone's class count, or use other data"
        )
    return logits
