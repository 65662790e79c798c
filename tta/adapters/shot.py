"""SHOT, online: information maximisation and confident pseudo-labels under a frozen head."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, Facts, Updater, checked_logits
from tta.adapters.entropy_minimization import mean_or_zero, no_contribution
from tta.adapters.head import parallel_heads
from tta.errors import InputError
from tta.functional.information import information_maximization_loss


class SHOT(Adapter):
    r"""Train everything below the head so that predictions are certain, diverse, and true to confident pseudo-labels.

    The loss is :math:`\overline{H(p_i)} + \sum_k \bar p_k \ln(\bar p_k + 10^{-5}) + \theta\,\mathrm{CE}`, with the
    cross-entropy of the predicted classes over the samples of probability above ``confidence``, exactly zero over
    nobody (the usual mean over nobody is NaN). The head, the "source hypothesis", is frozen, and so is a second one of
    the same size beside it, as distilled vision transformers have. Eval mode: normalisation uses source statistics,
    which stay.

    Returned logits are those from before the first step. A batch of one is predicted and teaches nothing: the
    entropy and the diversity of one sample cancel, and what is left, the pseudo-label alone, only confirms itself.
    Identical samples cancel in the same way and teach their pseudo-label. On constant logits the gradient is zero. With
    several processes each takes the diversity of its own samples.

    Diversity assumes that a batch holds all classes about equally: on sorted or correlated streams it pulls
    predictions away from the truth. All parameters train, so weights, gradients and the optimiser's state take several
    times the memory of the network.

    Args:
        pseudo_label_weight: :math:`\theta`, at least 0; 0 is information maximisation alone (SHOT-IM).
        confidence: Probability above which a prediction is a pseudo-label, in ``[0, 1)``.
        steps: Steps on each batch, at least 1; none follow one that was skipped for its gradient.

    Raises:
        InputError: For a value out of range; if the model has no linear head, or nothing below it.

    References:
        Do We Really Need to Access the Source Data? Source Hypothesis Transfer for Unsupervised Domain Adaptation, ICML
        2020, section 3.2, https://arxiv.org/abs/2002.08546. The method is offline there, with pseudo-labels by
        clustering the whole target set each epoch; what is run online, and here, is the version in the repository of
        T3A (weight 0.1, confidence 0.9, 1 or 3 steps, Adam at 0.1, 1 or 10 times the learning rate of training).
        With several steps it returns the logits of the last pass; here those of the first. Others: ttab takes weight
        0.3, SGD and train mode (batch statistics, moving running statistics, dropout); the repository of LAME has
        information maximisation alone, on the affine parameters of BatchNorm. The popular re-implementation has none.
    """

    facts = Facts(
        needs_gradients=True,
        steps_per_batch=1,
        smallest_domain=2,
        backwards=1,
        trains="all parameters but those of the head",
        paper="https://arxiv.org/abs/2002.08546",
    )

    def __init__(self, pseudo_label_weight: float = 0.1, confidence: float = 0.9, steps: int = 1) -> None:
        super().__init__()
        if not pseudo_label_weight >= 0.0:
            raise InputError(f"pseudo_label_weight={pseudo_label_weight}: need pseudo_label_weight >= 0")
        if not 0.0 <= confidence < 1.0:
            raise InputError(f"confidence={confidence}: need 0 <= confidence < 1")
        if steps < 1:
            raise InputError(f"steps={steps}: need steps >= 1")
        self.pseudo_label_weight = pseudo_label_weight
        self.confidence = confidence
        self.steps = steps
        self.facts = replace(type(self).facts, steps_per_batch=steps, forwards=steps, backwards=steps)

    def prepare(self, model: nn.Module) -> None:
        """Eval mode; all parameters but the head's require gradients.

        Raises:
            InputError: If the model has no linear layer, or no parameter besides those of the last one.
        """
        heads = parallel_heads(model)
        model.eval()
        model.requires_grad_(True)
        for head in heads:
            head.requires_grad_(False)
        if not self.trainable(model):
            raise InputError(f"SHOT: {type(model).__name__} has no parameter below its head, so nothing can adapt")

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """One or more steps on the batch, unless it is a batch of one."""
        teaches = len(x) > 1
        if not updater.any(teaches):
            return AdapterOutput(self.predict(model, x))
        logits, loss = self._learn(model, x, teaches, updater)
        return AdapterOutput(logits, loss=loss if teaches else None)

    def sit_out(self, model: nn.Module, x: Tensor, updater: Updater) -> None:
        """Contribute zero gradients if other processes have something to learn."""
        if updater.any(False):
            self._learn(model, x.nan_to_num(0.0, 0.0, 0.0), False, updater)

    def _learn(self, model: nn.Module, x: Tensor, teaches: bool, updater: Updater) -> tuple[Tensor, Tensor]:
        """Take the steps; logits and loss of the first pass."""
        passes: list[tuple[Tensor, Tensor]] = []
        for _ in range(self.steps):
            with torch.enable_grad():
                logits = model(x)
                output = checked_logits(logits)
                loss = self._loss(logits) if teaches else no_contribution(logits)
                updater.backward(loss)
            passes.append((output, loss.detach()))
            if not updater.step():
                break
        return passes[0]

    def _loss(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        confidence, labels = logits.detach().softmax(dim=1).max(dim=1)
        confident = confidence > self.confidence
        cross_entropies = F.cross_entropy(logits[confident], labels[confident], reduction="none")
        pseudo_label_loss = mean_or_zero(cross_entropies, logits)
        return information_maximization_loss(logits) + self.pseudo_label_weight * pseudo_label_loss
