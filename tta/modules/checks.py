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
    logits = run_on_images(backbone, images)
    if logits.dim() != 2 or logits.shape[1] != num_classes:
        raise InputError(
            f"the backbone gives an output of shape {tuple(logits.shape)} and the data has {num_classes} classes: set "
            "the backbone's class count, or use other data"
        )
    return logits


def run_on_images(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """What a network gives for images, or one line about why it cannot take them.

    Args:
        network: The network, or a part of it.
        images: Images, shape ``(B, ...)``.

    Raises:
        InputError: If the network cannot take such images.
    """
    try:
        return network(images)
    except (InputError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        shape = tuple(images.shape[1:])
        raise InputError(f"the backbone cannot take images of shape {shape}: {first_line(error)}") from error
