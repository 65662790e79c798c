"""What ETA, EATA and RDumb share: entropy minimisation on reliable, non-redundant samples."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tta.adapters.base import AdapterOutput, Updater
from tta.adapters.entropy_minimization import (
    check_positive,
    entropy_margin,
    mean_or_zero,
    no_contribution,
)
from tta.adapters.first_pass import nobody
from tta.adapters.select import Select
from tta.adapters.selective_minimization import SelectiveMinimization
from tta.functional.entropy import softmax_entropy


class ReliableEntropy(SelectiveMinimization):
    r"""Base of methods that minimise :math:`\exp(E_0 - H) H` over reliable, non-redundant samples.

    Args:
        margin: Entropy below which a sample is reliable, as a share of ``ln C``, above 0.
        redundancy: Cosine with the mean prediction, in absolute value, from which on a sample is redundant, above 0.
        select: Layers whose parameters adapt.

    Raises:
        InputError: For a value out of range.
    """

    mean_prediction: Tensor

    def __init__(self, margin: float, redundancy: float, select: Select) -> None:
        super().__init__(select)
        check_positive(margin=margin, redundancy=redundancy)
        self.margin = margin
        self.redundancy = redundancy
        self.register_buffer("mean_prediction", torch.empty(0))

    def reset(self) -> None:
        """Forget the moving average of predictions, and how many samples were selected."""
        super().reset()
        self.mean_prediction = self.mean_prediction.new_empty(0)

    def penalty(self, model: nn.Module) -> Tensor | float:
        """What is added to the loss of every step."""
        return 0.0

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """One step on the selected samples, if there are any."""
        first = self.passes.take(model, x)
        margin = entropy_margin(self.margin, first.logits)
        selected = self._select(softmax_entropy(first.logits), first.logits.softmax(dim=1), margin, updater)
        self.passes.observe(selected, updater)
        if not updater.any(bool(selected.any())):
            return AdapterOutput(first.logits, reliable=selected)
        with torch.enable_grad():
            logits = first.graph(selected)
            entropy = softmax_entropy(logits)
            weights = (margin - entropy.detach()).exp()
            loss = mean_or_zero(weights * entropy, logits) + self.penalty(model)
            updater.backward(loss)
        updater.step()
        return AdapterOutput(first.logits, loss=loss.detach(), reliable=selected)

    def sit_out(self, model: nn.Module, x: Tensor, updater: Updater) -> None:
        """Contribute no prediction to the moving average, and only the penalty to the gradients."""
        output = self.predict(model, x)
        self._update_mean_prediction(output.softmax(dim=1)[:0], updater)
        self.passes.observe(nobody(x), updater)
        if updater.any(False):
            with torch.enable_grad():
                updater.backward(no_contribution(model(x.nan_to_num(0.0, 0.0, 0.0))) + self.penalty(model))
            updater.step()

    def _select(self, entropy: Tensor, probabilities: Tensor, margin: float, updater: Updater) -> Tensor:
        selected = entropy < margin
        if len(self.mean_prediction):
            similarity = F.cosine_similarity(self.mean_prediction.unsqueeze(0), probabilities, dim=1)
            selected = selected & (similarity.abs() < self.redundancy)
        self._update_mean_prediction(probabilities[selected], updater)
        return selected

    def _update_mean_prediction(self, probabilities: Tensor, updater: Updater) -> None:
        total = probabilities.new_tensor([float(len(probabilities))])
        total = updater.mean(torch.cat([probabilities.sum(dim=0), total]))
        if total[-1] == 0:
            return
        mean = total[:-1] / total[-1]
        self.mean_prediction = 0.9 * self.mean_prediction + 0.1 * mean if len(self.mean_prediction) else mean
