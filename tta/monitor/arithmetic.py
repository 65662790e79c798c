"""What a backward pass costs, in forward passes: arithmetic counted, no clock."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tta.functional.forward_record import a_check

USUAL_RATIO = 2.0
"""Where every layer learns: one product for the gradient of its input and one for that of its weight."""


def backward_in_forwards(model: nn.Module, parameters: Sequence[nn.Parameter], images: Tensor) -> float:
    """Arithmetic of a backward pass from the logits to some parameters, over that of a forward pass.

    Counted are matrix products and convolutions, which are nearly all there is to count, on a copy of the model: of the
    model, its statistics and the generators nothing changes. About 2 where every layer learns, about 1 where only
    normalisation layers do, as the weights of the other layers need no gradient; less where the lowest layers are
    frozen, since no gradient goes below the first one that learns.

    A model that cannot be copied, or of whose operations none is known to the counter, is given 2, the usual ratio of
    networks that are trained whole. Parameters that are not the model's own, as of maps that a method inserts, are
    given what a gradient down to the images takes.

    Args:
        model: Classifier that maps images ``(B, ...)`` to logits ``(B, C)``, in any modes.
        parameters: What is trained.
        images: A few images on the model's device, shape ``(B, ...)``; two will do, as the ratio is the same for any.

    Returns:
        The ratio, at least 0; exactly 0 without parameters.

    References:
        Scaling Laws for Neural Language Models, 2020, section 2.1, https://arxiv.org/abs/2001.08361, for the ratio
        of 2.
    """
    if not parameters:
        return 0.0
    try:
        with _unseen(images.device):
            forward, backward = _arithmetic(model, parameters, images)
    except torch.OutOfMemoryError:
        raise  # a figure that depends on what else is in memory would be none
    except Exception:  # noqa: BLE001  whatever a foreign model raises: what it costs is no reason to stop it
        return USUAL_RATIO
    return backward / forward if forward else USUAL_RATIO


def _arithmetic(model: nn.Module, parameters: Sequence[nn.Parameter], images: Tensor) -> tuple[int, int]:
    trained = {id(parameter) for parameter in parameters}
    # Values are shared, as nothing is written to them; gradients are not.
    twins: dict[int, object] = {
        id(own): nn.Parameter(own.detach(), requires_grad=id(own) in trained) for own in model.parameters()
    }
    inputs = images.detach().nan_to_num(0.0, 0.0, 0.0).requires_grad_(not trained <= twins.keys())
    network = copy.deepcopy(model, dict(twins))
    with FlopCounterMode(display=False) as counter:
        logits = network(inputs)
        forward = counter.get_total_flops()
        if logits.requires_grad:
            logits.sum().backward()
    return forward, counter.get_total_flops() - forward


@contextmanager
def _unseen(device: torch.device) -> Iterator[None]:
    """Gradients on, generators put back, passes counted by nobody, attention in operations that the counter knows."""
    devices = [device] if device.type == "cuda" else []
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.random.fork_rng(devices),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
            sdpa_kernel(SDPBackend.MATH),
            a_check(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # compiled modules warn of the counter's hooks
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
