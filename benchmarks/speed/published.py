"""The published algorithms as plain loops, in our own words: what the speed of our adapters is compared with.

They do what the authors' code does, pass for pass and synchronisation for synchronisation: Tent (commit e9e926a), EATA
and SAR (commit 20f6e24 of SAR, whose repository holds both). The whole batch goes through every pass and filters are
applied to entropies. Which layers adapt and the network's modes are the caller's, so that both sides train the same.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer


def entropies(logits: Tensor) -> Tensor:
    """Entropy of every row, shape ``(B,)``, in nats."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)


class PublishedTent:
    """Mean entropy of the batch, one step.

    Args:
        model: The prepared classifier.
        optimizer: Optimiser over the adapted parameters.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.model, self.optimizer = model, optimizer

    def __call__(self, x: Tensor) -> Tensor:
        """Logits from before the step."""
        logits = self.model(x)
        loss = entropies(logits).mean(0)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return logits.detach()


class PublishedEATA:
    """Weighted entropy of reliable, non-redundant samples; without the Fisher anchor.

    Args:
        model: The prepared classifier.
        optimizer: Optimiser over the adapted parameters.
        margin: Entropy below which a sample is reliable, in nats.
        redundancy: Cosine with the mean prediction from which on a sample is redundant.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, margin: float, redundancy: float) -> None:
        self.model, self.optimizer = model, optimizer
        self.margin, self.redundancy = margin, redundancy
        self.mean_prediction: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Logits from before the step."""
        logits = self.model(x)
        entropy = entropies(logits)
        reliable = torch.where(entropy < self.margin)
        entropy = entropy[reliable]
        probabilities = logits[reliable].softmax(1)
        kept = x[reliable]
        if self.mean_prediction is not None:
            cosine = F.cosine_similarity(self.mean_prediction.unsqueeze(0), probabilities, dim=1)
            fresh = torch.where(cosine.abs() < self.redundancy)
            entropy, probabilities, kept = entropy[fresh], probabilities[fresh], kept[fresh]
        self._update_mean_prediction(probabilities)
        weights = 1 / torch.exp(entropy.clone().detach() - self.margin)
        loss = entropy.mul(weights).mean(0)
        if kept.size(0) != 0:
            loss.backward()
            self.optimizer.step()
        self.optimizer.zero_grad()
        return logits.detach()

    @torch.no_grad()
    def _update_mean_prediction(self, probabilities: Tensor) -> None:
        if probabilities.size(0) == 0:
            return
        mean = probabilities.mean(0)
        self.mean_prediction = mean if self.mean_prediction is None else 0.9 * self.mean_prediction + 0.1 * mean


class PublishedSAR:
    """Entropy of reliable samples with two full passes, the second at the worst point nearby.

    A batch without reliable samples still goes through both passes and steps on momentum. Resets are the caller's.

    Attributes:
        still: Samples of the last batch that were reliable before and after the move.

    Args:
        model: The prepared classifier.
        optimizer: Optimiser over ``parameters``.
        parameters: The adapted parameters.
        margin: Entropy below which a sample is reliable, in nats.
        rho: Radius of the move.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        parameters: Sequence[nn.Parameter],
        margin: float,
        rho: float = 0.05,
    ) -> None:
        self.model, self.optimizer, self.parameters = model, optimizer, parameters
        self.margin, self.rho = margin, rho
        self.before: dict[nn.Parameter, Tensor] = {}
        self.average: float | None = None
        self.still = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Logits from before the step."""
        self.optimizer.zero_grad()
        logits = self.model(x)
        entropy = entropies(logits)
        reliable = torch.where(entropy < self.margin)
        entropy[reliable].mean(0).backward()
        self._move()
        second = entropies(self.model(x))[reliable]
        still = torch.where(second < self.margin)
        self.still = len(still[0])
        loss = second[still].mean(0)
        value = loss.item()
        if not math.isnan(value):
            self.average = value if self.average is None else 0.9 * self.average + 0.1 * value
        loss.backward()
        self._return_and_step()
        return logits.detach()

    @torch.no_grad()
    def _move(self) -> None:
        norms = [parameter.grad.norm(p=2) for parameter in self.parameters if parameter.grad is not None]
        scale = self.rho / (torch.norm(torch.stack(norms), p=2) + 1e-12)
        for parameter in self.parameters:
            if parameter.grad is None:
                continue
            self.before[parameter] = parameter.data.clone()
            parameter.add_(parameter.grad * scale.to(parameter))
        self.optimizer.zero_grad()

    @torch.no_grad()
    def _return_and_step(self) -> None:
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.data = self.before[parameter]
        self.optimizer.step()
        self.optimizer.zero_grad()
