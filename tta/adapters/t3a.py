"""T3A: classify by templates, averaged from the most certain features of each class."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, Facts, Updater
from tta.adapters.head import linear_head, logits_and_features
from tta.errors import InputError
from tta.functional.entropy import softmax_entropy
from tta.functional.supports import support_replacements


class T3A(Adapter):
    r"""Replace the classifier's head by templates: mean directions of the most certain features of every class.

    The network is frozen, in eval mode with source statistics. Every class keeps the ``filter_size`` supports of
    lowest entropy; the first is its row of the head. A batch adds its features, under the class that the head
    predicts and with the entropy of the head's prediction, which is never computed again. Logits are the products of
    the features with the templates, the sums of the supports at unit length brought to unit length, without bias or
    temperature: they rank classes, and their softmax is poorly calibrated. Predictions include the batch's own samples,
    as published, so a batch of one works and :meth:`predict` says what the present supports say.

    Every sample may teach. At equal entropy the support that came earlier stays. On constant logits the samples enter
    class 0, with the greatest entropy there is, so they are the first to leave. A sample whose features or logits are
    not finite enters no support. Under bf16 a prediction that rounding flips goes to the supports of another class, and
    a template of few supports may turn with it.

    Memory is fixed, ``4 * C * filter_size * D`` bytes: 0.4 MB for ten classes of 512 features at 20, 164 MB for
    ImageNet's of a ResNet-50. A batch costs sorting and summing of the classes that it holds.

    Args:
        filter_size: :math:`M`, supports of a class, at least 1. The authors choose among 1, 5, 20, 50, 100 and all on
            held-out source data. There is no "all" here: on an endless stream it has no end.

    Raises:
        InputError: If ``filter_size`` is out of range; if the classifier has no linear head that takes one vector
            per image and whose outputs are the logits, as in distilled networks, which average two heads.

    References:
        Test-Time Classifier Adjustment Module for Model-Agnostic Domain Generalization, NeurIPS 2021,
        https://openreview.net/forum?id=e_yvNqkJKAW. The head's row of a class is a support of that class, as in the
        paper; the authors' code puts it under the class that the head gives that row, which in a trained network is
        the same one. Where it is not, a class of theirs starts without supports and its logit is exactly 0, the highest
        one if all others are negative. Their ``filter_K=-1``, meant to keep all, slices ``[:-1]`` and so drops
        the least certain support of every class at every batch, down to none. Theirs goes through the classes in a
        loop and sorts without a rule for ties.
    """

    facts = Facts(predicts_after=True, one_process=True, paper="https://openreview.net/forum?id=e_yvNqkJKAW")

    supports: Tensor
    entropies: Tensor
    templates: Tensor
    rows: Tensor
    row_entropies: Tensor

    def __init__(self, filter_size: int = 20) -> None:
        super().__init__()
        if isinstance(filter_size, bool) or not isinstance(filter_size, int) or filter_size < 1:
            raise InputError(
                f"filter_size={filter_size}: need a whole number >= 1; keeping all supports of an endless stream would "
                "fill the memory"
            )
        self.filter_size = filter_size
        for name in ("supports", "entropies", "templates", "rows", "row_entropies"):
            self.register_buffer(name, torch.empty(0))

    @torch.no_grad()
    def prepare(self, model: nn.Module) -> None:
        """Freeze everything, eval mode; the head's rows are the first supports.

        Raises:
            InputError: If the model has no linear layer.
        """
        head = linear_head(model)
        model.eval()
        model.requires_grad_(False)
        if len(self.rows):
            return
        weight = head.weight.float()
        bias = 0.0 if head.bias is None else head.bias.float()
        self.rows = F.normalize(weight, dim=1)
        self.row_entropies = softmax_entropy(weight @ weight.T + bias)
        self.supports = self.rows.new_empty(len(weight), self.filter_size, weight.shape[1])
        self.entropies = self.rows.new_empty(len(weight), self.filter_size)
        self.templates = torch.empty_like(self.rows)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Keep the head's rows alone."""
        if len(self.rows):
            self.supports.zero_()[:, 0] = self.rows
            self.entropies.fill_(math.inf)[:, 0] = self.row_entropies
            self.templates.copy_(self.rows)

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """Take the batch into the supports, then predict it."""
        with torch.no_grad():
            logits, features = self._pass(model, x)
            with torch.autocast(features.device.type, enabled=False):
                self._take_in(logits, features)
                return AdapterOutput(features @ self.templates.T)

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """Logits by the present templates, shape ``(B, C)``, float32. Changes nothing."""
        with torch.no_grad():
            _, features = self._pass(model, x.nan_to_num(0.0, 0.0, 0.0))
            with torch.autocast(features.device.type, enabled=False):
                return features @ self.templates.T

    def _pass(self, model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        made: list[Tensor] = []
        handle = linear_head(model).register_forward_hook(lambda module, inputs, output: made.append(output.detach()))
        try:
            logits, features = logits_and_features(model, x)
        finally:
            handle.remove()
        if logits.shape[1] != len(self.rows):
            raise InputError(
                f"T3A: the classifier returned {logits.shape[1]} logits and its last linear layer has {len(self.rows)} "
                "outputs: give a classifier whose last linear layer makes the logits"
            )
        if not torch.allclose(made[-1].float(), logits, rtol=0.0, atol=0.0, equal_nan=True):
            raise InputError(
                "T3A: the classifier's logits are not what its last linear layer gives, which the templates replace: "
                "give a classifier with one head (distilled ones have two), its outputs returned as they are"
            )
        return logits, features

    def _take_in(self, logits: Tensor, features: Tensor) -> None:
        entropies = softmax_entropy(logits)
        usable = torch.isfinite(entropies) & torch.isfinite(features).all(dim=1)
        features, labels = F.normalize(features[usable], dim=1), logits[usable].argmax(dim=1)
        places, samples = support_replacements(self.entropies, entropies[usable], labels)
        self.supports.view(-1, features.shape[1])[places] = features[samples]
        self.entropies.view(-1)[places] = entropies[usable][samples]
        changed = torch.unique(labels[samples])
        self.templates[changed] = F.normalize(self.supports[changed].sum(dim=1), dim=1)
