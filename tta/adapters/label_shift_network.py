"""The network that turns a degree of imbalance into a change of the classifier's head."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tta.companion import Companion
from tta.errors import InputError
from tta.functional.label_shift import class_prior, linear_degree, log_slope_degree

DEGREES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"linear": linear_degree, "log_slope": log_slope_degree}
"""Maps from a prior ``(..., C)`` and the source prior ``(C,)`` to a scalar ``(...)``, by name."""

FORMS = ("full", "low_rank", "per_class_scale")
"""Ways in which the network writes the change of the head's weight."""

KIND = "LabelShift"


class HeadChange(NamedTuple):
    """What is done to a linear head: ``(W + delta_weight) (gamma * h + beta) + b + delta_bias``.

    Attributes:
        gamma: Scale of the features, shape ``(D,)``; ``None`` for 1.
        beta: Shift of the features, shape ``(D,)``; ``None`` for 0.
        delta_weight: Shape ``(C, D)``; ``None`` for 0.
        delta_bias: Shape ``(C,)``.
    """

    gamma: Tensor | None
    beta: Tensor | None
    delta_weight: Tensor | None
    delta_bias: Tensor

    def features(self, features: Tensor) -> Tensor:
        """What enters the changed head, shape ``(..., D)``, of features of the same shape and dtype."""
        if self.gamma is None or self.beta is None:
            return features
        return (self.gamma * features + self.beta).to(features.dtype)

    def added(self, features: Tensor) -> Tensor:
        """What is added to the head's output, shape ``(..., C)``, float32, for features that were already changed."""
        if self.delta_weight is None:
            return self.delta_bias
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(features.float(), self.delta_weight, self.delta_bias)

    def logits(self, head: nn.Linear, features: Tensor) -> Tensor:
        """Logits of the changed head, shape ``(..., C)``, of features ``(..., D)``."""
        changed = self.features(features)
        return head_logits(head, changed) + self.added(changed)


def head_logits(head: nn.Linear, features: Tensor) -> Tensor:
    """Logits of a head whose parameters may have another dtype than the features, in that of the features."""
    bias = None if head.bias is None else head.bias.to(features.dtype)
    return F.linear(features, head.weight.to(features.dtype), bias)


class LabelShiftNetwork(nn.Module):
    r"""A small network from the degree of imbalance of a prior to a :class:`HeadChange`.

    ``degree -> hidden -> ReLU -> (gamma, beta, change of the weight, delta_bias)``. The last layer starts at zero, so
    an untrained network changes nothing. With ``full`` it has ``hidden * (2 D + C D + C)`` weights, 3 million for a
    ResNet-50 on 15 classes but 205 million on ImageNet: there take ``low_rank`` (``delta_weight = A B`` of ``rank``,
    ``A`` from the network and ``B`` learnt once, the same for all degrees) or ``per_class_scale`` (each class' weight
    vector is scaled by one number of the network's).

    Args:
        features: ``D``, size of the features that enter the head.
        source_prior: Class counts or probabilities of the source, ``C`` positive numbers.
        hidden: Width of the hidden layer. Not published; 100 fits every anchor prior and trains in seconds.
        form: ``full``, ``low_rank`` or ``per_class_scale``.
        rank: Rank of ``low_rank``, at least 1.
        degree: Map from a prior to its degree of imbalance, a name of :data:`DEGREES`. Not published but for being a
            scalar; ``log_slope``, because ``linear`` squeezes all priors beyond the uniform one together.
        head: Name of the head's layer in the classifier; its last linear layer if ``None``.

    Raises:
        InputError: For an unknown form or degree, or a number out of range.

    References:
        Label Shift Adapter for Test-Time Adaptation under Covariate and Label Shifts, ICCV 2023, figure 3,
        https://arxiv.org/abs/2308.08810. No code was published. What figure 3 does not tell is an argument.
    """

    source_prior: Tensor

    def __init__(
        self,
        features: int,
        source_prior: Sequence[float] | Tensor,
        hidden: int = 100,
        form: Literal["full", "low_rank", "per_class_scale"] = "full",
        rank: int = 4,
        degree: str = "log_slope",
        head: str | None = None,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise InputError(f"form={form!r}: choose from {', '.join(FORMS)}")
        if degree not in DEGREES:
            raise InputError(f"degree={degree!r}: choose from {', '.join(DEGREES)}")
        if min(features, hidden, rank) < 1:
            raise InputError(f"features={features}, hidden={hidden}, rank={rank}: need all >= 1")
        self.register_buffer("source_prior", class_prior(source_prior, "source_prior"))
        self.features, self.classes, self.hidden = features, len(self.source_prior), hidden
        self.form, self.rank, self.degree, self.head = form, rank, degree, head
        sizes = {"full": features, "low_rank": rank, "per_class_scale": 1}
        self.sizes = (features, features, self.classes * sizes[form], self.classes)
        self.body = nn.Sequential(nn.Linear(1, hidden), nn.ReLU())
        self.out = nn.Linear(hidden, sum(self.sizes))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        if form == "low_rank":
            self.directions = nn.Parameter(torch.randn(rank, features) / features**0.5)

    def degree_of(self, prior: Tensor) -> Tensor:
        """Degree of imbalance of a prior ``(C,)``, scalar."""
        return DEGREES[self.degree](prior, self.source_prior)

    def forward(self, prior: Tensor, head: nn.Linear) -> HeadChange:
        """What to do to the head for a class prior.

        Args:
            prior: Probabilities, float, shape ``(C,)``.
            head: The head, whose weight ``(C, D)`` ``per_class_scale`` scales.

        Returns:
            The change; its tensors are on the graph of the network's parameters.
        """
        values = self.out(self.body(self.degree_of(prior).reshape(1)))
        scale, shift, weight, bias = values.split(self.sizes)
        weight = weight.view(self.classes, -1)
        if self.form == "low_rank":
            weight = weight @ self.directions
        elif self.form == "per_class_scale":
            weight = weight * head.weight.detach().to(weight.dtype)
        return HeadChange(1 + scale, shift, weight, bias)

    def settings(self) -> dict[str, int | str | None]:
        """Constructor arguments but the source prior, plain types."""
        names = ("features", "hidden", "form", "rank", "degree", "head")
        return {name: getattr(self, name) for name in names}

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and the source prior, by name."""
        return {f"network.{name}": tensor for name, tensor in self.state_dict().items()}

    @classmethod
    def from_companion(cls, companion: Companion) -> "LabelShiftNetwork":
        """The trained network of a companion.

        Raises:
            InputError: If the companion is of another method, or lacks something.
        """
        companion = Companion.of(companion, KIND)
        state = {key.removeprefix("network."): t for key, t in companion.tensors.items() if key.startswith("network.")}
        try:
            with torch.random.fork_rng(devices=[]):
                network = cls(source_prior=state["source_prior"], **companion.settings["network"])
            network.load_state_dict(state)
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputError(
                f"the companion of {KIND} is not whole ({type(error).__name__}): train it again with LabelShiftTraining"
            ) from error
        return network.requires_grad_(False).eval()
