"""What a model with experts per domain must offer to the methods that use them."""

from typing import Protocol, cast

from torch import Tensor, nn

from tta.errors import InputError


class DomainExpertsModel(Protocol):
    """A student classifier with frozen experts and an aggregator, as ``models.DomainExperts``.

    Attributes:
        experts: The frozen networks, one per group of domains.
        aggregator: The network that makes one feature vector of the experts'.
        student: The classifier that learns.
    """

    experts: nn.ModuleList
    aggregator: nn.Module
    student: nn.Module

    def __call__(self, x: Tensor, features: bool = False) -> Tensor:
        """The student's logits ``(B, K)``, or its features ``(B, D)``."""

    def feature_parameters(self) -> dict[str, nn.Parameter]:
        """The student's parameters without its head, by their name in the model."""

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters of the student's head, by their name in the model."""

    def aggregate(self, x: Tensor, hidden: int | None = None) -> Tensor:
        """Target features ``(B, D)`` from all experts but the hidden one."""

    def aggregated_logits(self, x: Tensor, hidden: int | None = None) -> Tensor:
        """Logits ``(B, K)`` of the aggregator's own head."""


def domain_experts(model: nn.Module) -> DomainExpertsModel:
    """The model as what it must be.

    Raises:
        InputError: If it lacks something.
    """
    needed = (*DomainExpertsModel.__annotations__, "feature_parameters", "head_parameters", "aggregate")
    missing = [name for name in (*needed, "aggregated_logits") if not hasattr(model, name)]
    if missing:
        raise InputError(
            f"{type(model).__name__} has no {', '.join(missing)}: Meta-DMoE needs a student with experts and an "
            "aggregator, such as models.DomainExperts around the network"
        )
    return cast(DomainExpertsModel, model)
