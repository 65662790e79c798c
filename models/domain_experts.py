"""A student classifier, one frozen expert per group of domains, and the aggregator that makes targets of them."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.aggregator import Aggregator
from tta.errors import InputError, first_line


class DomainExperts(nn.Module):
    """A classifier that carries the experts it can learn from; to everybody else it is the student alone.

    Features of a network are what enters its last linear layer. Keys of the state dict begin with ``experts.0.``,
    ``experts.1.``, ..., ``aggregator.`` and ``student.``.

    Args:
        student: The classifier, logits ``(B, K)`` from a linear layer, its last one.
        experts: Number of experts N, at least 2; each is a copy of the student.
        depth: Transformer blocks of the aggregator.
        heads: Attention heads of the aggregator; must divide the size D of the features.
        dropout: Dropout rate of the aggregator.
        student_weights: File of the student's weights: the ``weights.safetensors`` that ``tta fit`` wrote.
        expert_weights: Such files of the experts, one per expert, in the order of the groups of domains.

    Raises:
        InputError: If the student has no linear layer, an argument is out of range, the number of files is not that of
            the experts, or a file cannot be read or does not fit.

    References:
        Meta-DMoE: Adapting to Domain Shift by Meta-Distillation from Mixture-of-Experts, NeurIPS 2022, section 4,
        https://arxiv.org/abs/2210.03885. Experts keep their heads, which nothing uses, so that files fit.
    """

    def __init__(
        self,
        student: nn.Module,
        experts: int,
        depth: int = 1,
        heads: int = 16,
        dropout: float = 0.1,
        student_weights: str | None = None,
        expert_weights: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if experts < 2:
            raise InputError(f"experts={experts}: need at least 2, so that one is left where one is hidden")
        head = _head(student)
        if student_weights is not None:
            _load(student, student_weights)
        self.experts = nn.ModuleList(copy.deepcopy(student) for _ in range(experts))
        self.aggregator = Aggregator(head.in_features, head.out_features, depth, heads, dropout)
        # The last of the three, so that the last linear layer of the whole is the student's head.
        self.student = student
        self._load_experts(expert_weights)

    def _load_experts(self, files: Sequence[str] | None) -> None:
        if files is None:
            return
        if len(files) != len(self.experts):
            raise InputError(f"expert_weights: {len(files)} files for {len(self.experts)} experts; give one for each")
        for expert, file in zip(self.experts, files, strict=True):
            _load(expert, file)

    def forward(self, x: Tensor, features: bool = False) -> Tensor:
        """The student's logits, shape ``(B, K)``, of images ``(B, C, H, W)``; its features ``(B, D)`` if asked."""
        return _features(self.student, x) if features else self.student(x)

    def feature_parameters(self) -> dict[str, nn.Parameter]:
        """The student's parameters without its head, by their name in this module."""
        head = {id(parameter) for parameter in _head(self.student).parameters()}
        found = self.student.named_parameters(prefix="student")
        return {name: parameter for name, parameter in found if id(parameter) not in head}

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters of the student's head, by their name in this module."""
        head = {id(parameter) for parameter in _head(self.student).parameters()}
        found = self.student.named_parameters(prefix="student")
        return {name: parameter for name, parameter in found if id(parameter) in head}

    @torch.no_grad()
    def expert_features(self, x: Tensor, hidden: int | None = None) -> Tensor:
        """Features of all experts but the hidden one, which is not run.

        Args:
            x: Images, shape ``(B, C, H, W)``.
            hidden: Number of the expert to leave out; ``None`` leaves out none.

        Returns:
            Tokens, shape ``(B, N, D)`` or ``(B, N - 1, D)``, without gradients: experts are frozen.
        """
        seen = [expert for number, expert in enumerate(self.experts) if number != hidden]
        return torch.stack([_features(expert, x) for expert in seen], dim=1)

    def aggregate(self, x: Tensor, hidden: int | None = None) -> Tensor:
        """What the experts together take the features to be: the target of the student.

        Args:
            x: Images, shape ``(B, C, H, W)``.
            hidden: Number of the expert to leave out; ``None`` leaves out none.

        Returns:
            Features, shape ``(B, D)``, with gradients to the aggregator.
        """
        target: Tensor = self.aggregator(self.expert_features(x, hidden))
        return target

    def aggregated_logits(self, x: Tensor, hidden: int | None = None) -> Tensor:
        """Logits of the aggregator's own head, shape ``(B, K)``; arguments as :meth:`aggregate`."""
        logits: Tensor = self.aggregator.head(self.aggregate(x, hidden))
        return logits


def _head(network: nn.Module) -> nn.Linear:
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise InputError(f"student: {type(network).__name__} has no linear layer that could be its head; give one")
    return layers[-1]


def _features(network: nn.Module, x: Tensor) -> Tensor:
    found: list[Tensor] = []
    handle = _head(network).register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    try:
        network(x)
    finally:
        handle.remove()
    return found[-1]


def _load(network: nn.Module, file: str) -> None:
    path = Path(file)
    if not path.is_file():
        raise InputError(f"no weights at {path.resolve()}: give the weights.safetensors that 'tta fit' wrote")
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot read weights from {path}: {first_line(error)}") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split()[:40])
        raise InputError(f"{path} does not fit {type(network).__name__}, the student's network: {reason}") from error
