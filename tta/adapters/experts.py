"""What a classifier with several experts must offer to the methods that mix them."""

from torch import nn

from tta.errors import InputError


def expert_count(model: nn.Module, demand: str) -> int:
    """Number of experts of a classifier.

    Args:
        model: A classifier with ``num_experts`` and ``expert_logits(x)``, from images to logits ``(B, E, C)``.
        demand: What is asked of the user, for the message.

    Raises:
        InputError: If the classifier has no experts.
    """
    experts = getattr(model, "num_experts", None)
    if not isinstance(experts, int) or not callable(getattr(model, "expert_logits", None)):
        raise InputError(
            f"{type(model).__name__} has no experts: {demand} with num_experts and expert_logits(x) of shape "
            "(B, E, C), such as models.MultiExpertCifarResNet, models.MultiExpertTimm or models.Experts"
        )
    return experts
