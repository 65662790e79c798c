"""Protocols that give a part of the weights back after every batch."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tta.adapters.base import AdapterOutput, ResetScope
from tta.errors import InputError
from tta.resets.base import Adaptation, ResetProtocol
from tta.seeds import derived_seed


class PartialRestore(ResetProtocol):
    """Base of protocols that put some elements of the trained tensors back to their source values, after the step.

    What is trained is what the method hands to the optimiser: in the model, or, where the method trains tensors of its
    own, those, whose source is what they start with. Running statistics, optimiser and method state stay as they are.
    With a method that trains nothing, nothing is restored. A partial restore is no reset, and not counted as one.

    A subclass writes :meth:`masks`.
    """

    def prepare(self, adaptation: Adaptation) -> None:
        """Remember the values of tensors that the method trains outside the model."""
        for number, parameter in enumerate(_outside(adaptation)):
            self.register_buffer(f"start{number}", parameter.detach().clone())

    @abstractmethod
    def masks(self, adaptation: Adaptation, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
        """Which elements go back.

        Args:
            adaptation: The classifier under adaptation, after the step.
            parameters: All trained tensors.

        Returns:
            For each tensor a mask of its shape, bool, on its device; ``None`` where all of it stays.
        """

    @torch.no_grad()
    def after(self, adaptation: Adaptation, x: Tensor, output: AdapterOutput) -> ResetScope | None:
        """Restore the elements in place."""
        pairs = self._with_source(adaptation)
        masks = self.masks(adaptation, [parameter for parameter, _ in pairs])
        for (parameter, source), mask in zip(pairs, masks, strict=True):
            if mask is not None:
                parameter.copy_(torch.where(mask, source, parameter))
        return None

    def _with_source(self, adaptation: Adaptation) -> list[tuple[nn.Parameter, Tensor]]:
        source = adaptation.source.values
        named = adaptation.model.named_parameters()
        values = {parameter: source[name] for name, parameter in named if name in source}
        for number, parameter in enumerate(_outside(adaptation)):
            values[parameter] = self.get_buffer(f"start{number}")
        return [(parameter, values[parameter]) for parameter in _trained(adaptation)]


class StochasticRestore(PartialRestore):
    r"""Every element of the trained tensors goes back to the source with a small probability, as in CoTTA.

    After each batch, whether or not the method took a step,
    :math:`W \leftarrow M \odot W_0 + (1 - M) \odot W` with :math:`M \sim \mathrm{Bernoulli}(p)`, drawn anew.

    What is drawn depends on seed and batch alone, not on the global generator; it is the same on all processes, and
    differs between a CPU and a GPU.

    Args:
        probability: :math:`p`, in ``(0, 1]``: 0.01 is published for CIFAR-10 and CIFAR-100, 0.001 for ImageNet.
        seed: Non-negative seed of the masks.

    Raises:
        InputError: For a value out of range.

    References:
        Continual Test-Time Domain Adaptation, CVPR 2022, eq. (7) and (8), https://arxiv.org/abs/2203.13591. Differs
        from the authors' code: that restores tensors called ``weight`` or ``bias`` only, and so leaves class tokens,
        position embeddings and the projections of ``nn.MultiheadAttention`` alone; with several steps per batch it
        restores after each.
    """

    batches: Tensor

    def __init__(self, probability: float = 0.01, seed: int = 0) -> None:
        super().__init__()
        if not 0.0 < probability <= 1.0 or seed < 0:
            raise InputError(f"probability={probability}, seed={seed}: need 0 < probability <= 1 and seed >= 0")
        self.probability = probability
        self.seed = seed
        self.register_buffer("batches", torch.tensor(0))

    def masks(self, adaptation: Adaptation, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """Independent draws."""
        state = derived_seed(self.seed, int(self.batches))
        self.batches += 1
        generators: dict[torch.device, torch.Generator] = {}
        masks = []
        for parameter in parameters:
            device = parameter.device
            if device not in generators:
                generators[device] = torch.Generator(device).manual_seed(state)
            masks.append(torch.rand(parameter.shape, generator=generators[device], device=device) < self.probability)
        return masks

    def reset(self) -> None:
        """The masks of the first batch come next."""
        self.batches.zero_()


class FisherRestore(PartialRestore):
    r"""The elements that mattered least for the batch just learnt from go back to the source, as in PETAL.

    After each step the elements whose Fisher information, the squared gradient of that step, lies below its ``share``
    quantile over all trained elements are restored. A batch without a step, or whose step was skipped for a non-finite
    gradient, restores nothing. With several steps per batch the last one counts; with SAR, the gradient at its worst
    point.

    As published, the comparison is strict: where more than ``share`` of the gradients are exactly zero, as in a network
    with dead units, the quantile is zero and nothing is restored.

    Args:
        share: Quantile, in ``(0, 1)``: 0.03 is published for CIFAR-10 and CIFAR-100, 0.003 for ImageNet.

    Raises:
        InputError: For a value out of range.

    References:
        A Probabilistic Framework for Lifelong Test-Time Adaptation, CVPR 2023, section 3.3 and algorithm 1,
        https://arxiv.org/abs/2212.09713. Differs from the authors' code: the gradient is that of the method's own loss,
        not of PETAL's; tensors of any name take part, not only those called ``weight`` and ``bias``.
    """

    def __init__(self, share: float = 0.03) -> None:
        super().__init__()
        if not 0.0 < share < 1.0:
            raise InputError(f"share={share}: need 0 < share < 1")
        self.share = share

    def prepare(self, adaptation: Adaptation) -> None:
        """Ask the updater to keep the squared gradients of a step."""
        super().prepare(adaptation)
        adaptation.updater.keep_squared_gradients = True

    def masks(self, adaptation: Adaptation, parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
        """Elements with less information than the quantile."""
        information = adaptation.updater.squared_gradients
        adaptation.updater.squared_gradients = {}
        known = [information[parameter].flatten() for parameter in parameters if parameter in information]
        if not known:
            return [None] * len(parameters)
        threshold = quantile(torch.cat(known), self.share)
        return [information[p] < threshold if p in information else None for p in parameters]


def quantile(values: Tensor, share: float) -> Tensor:
    """Quantile with linear interpolation, for tensors of any size (``torch.quantile`` takes 16 million elements).

    Args:
        values: Shape ``(N,)``, ``N >= 1``.
        share: In ``[0, 1]``.

    Returns:
        Scalar.
    """
    position = share * (len(values) - 1)
    low = int(position)
    below = values.kthvalue(low + 1).values
    above = values.kthvalue(min(low + 2, len(values))).values
    return below + (above - below) * (position - low)


def _trained(adaptation: Adaptation) -> list[nn.Parameter]:
    return adaptation.adapter.trainable(adaptation.model) if adaptation.adapter.facts.needs_gradients else []


def _outside(adaptation: Adaptation) -> list[nn.Parameter]:
    inside = set(adaptation.model.parameters())
    return [parameter for parameter in _trained(adaptation) if parameter not in inside]
