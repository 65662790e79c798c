"""SADE: mix experts by how well their mixture agrees with itself on two views."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, Facts, Updater, checked_logits
from tta.adapters.experts import expert_count
from tta.adapters.views import SmallImageViews, Transform, random_views
from tta.errors import InputError
from tta.functional.entropy import marginal_entropy
from tta.functional.experts import agreement


@dataclass(frozen=True)
class Transductive:
    """How mixing weights are learnt from a whole stream before it is predicted.

    The published protocol draws new views in every epoch, that is ``draws = epochs``. By default views are drawn once:
    the experts then see each image twice in all, whatever the number of epochs, and only logits are kept.

    Attributes:
        epochs: Most passes over the stream, at least 1.
        batch_size: Samples of a step, at least 1.
        stop_below: No further epoch once a mixing weight is below this; 0 never stops early.
        draws: Pairs of views of every image, at least 1; the epochs take them in turn. Kept in memory: ``2 * draws``
            numbers per image, expert and class.

    Raises:
        InputError: For a value out of range.
    """

    epochs: int = 5
    batch_size: int = 128
    stop_below: float = 0.05
    draws: int = 1

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("epochs", "batch_size", "draws"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: need {name} >= 1")
        if not 0.0 <= self.stop_below < 1.0:
            raise InputError(f"stop_below={self.stop_below}: need 0 <= stop_below < 1; 0.05 is published")


class SADE(Adapter):
    r"""Learn mixing weights of experts by the agreement of predictions of two views.

    The experts' logits :math:`v_e` are mixed by :math:`a = \mathrm{softmax}(w)`. One step lowers
    :math:`-\overline{\cos(p^1, p^2)}`, with :math:`p^i` the softmax of the mixture on the i-th random view, over
    :math:`w` alone: the network stays as it is, and no gradient goes through it. Predicted is the mixture on the image
    itself. In the published experiments the optimiser is SGD with Nesterov momentum 0.9, weight decay 5e-4 and the
    learning rate of training.

    Agreement favours an expert that always says the same. On a balanced stream the weights therefore drift to one
    expert, and an expert that was trained too little for its prior (large ``tau``, few epochs) takes all. The
    figures ``weight_1``, ``weight_2``, ... show it, ``dominance`` warns of it, and ``entropy_weight`` is a remedy.

    Every finite sample teaches, and a batch of one does too. On constant logits the gradient is zero.

    Args:
        predict: Predict a batch ``after`` its step, as published, or ``before``.
        views: Random transformation of an image ``(C, H, W)`` in ``[0, 1]``, on its device: any callable that draws
            from torch's global generator, such as those of :mod:`tta.adapters.views`. Its results must have one size,
            which the network takes. By default the published one of CIFAR images.
        seed: Non-negative seed of the views.
        entropy_weight: Weight, at least 0, of what the entropy of the mean prediction, as a share of ``ln C``, falls
            short of that of the un-adapted average of the experts on the same views. Not in the paper. Weights can
            then narrow the predictions only where agreement gains more than that. The plain negative entropy, which
            others add to such losses, would spread predictions beyond the average's, also where the stream is truly
            long-tailed.
        freeze_below: Online, learn no more once a mixing weight has fallen below this; 0 never stops. The paper stops
            so between epochs only.
        dominance: Warn once when a mixing weight exceeds this, above 0; changes nothing else.
        transductive: Learn the weights from the whole stream before predicting it. By default online.

    Raises:
        InputError: For a value out of range, or a model that has no experts.

    References:
        Self-Supervised Aggregation of Diverse Experts for Test-Agnostic Long-Tailed Recognition, NeurIPS 2022,
        https://arxiv.org/abs/2107.09249, and its code (commit cba11b8). Differs from the code: logits of the views are
        computed without a graph, which gives the same gradient; every image has its own draw from a seed; views are
        drawn once for all epochs unless ``draws`` says otherwise. Its online script stops with an error after the
        first stream; here it is the default mode, and any batch size will do.
    """

    facts = Facts(
        needs_gradients=True,
        steps_per_batch=1,
        needs_companion=True,
        predicts_after=True,
        forwards=3,
        augments=True,
        trains="mixing weights of the experts",
        paper="https://arxiv.org/abs/2107.09249",
    )

    step: Tensor
    frozen: Tensor
    warned: Tensor
    observed: Tensor

    def __init__(
        self,
        predict: Literal["after", "before"] = "after",
        views: Transform | None = None,
        seed: int = 0,
        entropy_weight: float = 0.0,
        freeze_below: float = 0.0,
        dominance: float = 0.95,
        transductive: Transductive | None = None,
    ) -> None:
        super().__init__()
        if predict not in ("after", "before"):
            raise InputError(f"predict={predict!r}: choose after or before")
        if seed < 0 or not entropy_weight >= 0.0:
            raise InputError(f"seed={seed}, entropy_weight={entropy_weight}: need both >= 0")
        if not 0.0 <= freeze_below < 1.0 or not dominance > 0.0:
            raise InputError(
                f"freeze_below={freeze_below}, dominance={dominance}: need 0 <= freeze_below < 1 and dominance > 0"
            )
        self.predict_after = predict == "after"
        self.views = SmallImageViews() if views is None else views
        self.seed = seed
        self.entropy_weight = entropy_weight
        self.freeze_below = freeze_below
        self.dominance = dominance
        self.transductive = transductive
        self.facts = replace(self.facts, predicts_after=self.predict_after)
        if transductive is not None:
            self.facts = replace(
                self.facts, needs_target_data=True, predicts_after=False, steps_per_batch=0, forwards=1
            )
        self.weights = nn.Parameter(torch.empty(0))
        self.register_buffer("step", torch.tensor(0))
        self.register_buffer("frozen", torch.tensor(False))
        self.register_buffer("warned", torch.tensor(False))
        self.register_buffer("observed", torch.tensor(False))

    def prepare(self, model: nn.Module) -> None:
        """Eval mode, the whole model frozen; one mixing weight for each expert.

        Raises:
            InputError: If the model has no experts.
        """
        experts = expert_count(model, "SADE needs a model")
        model.eval()
        model.requires_grad_(False)
        if len(self.weights) != experts:
            device = next((p.device for p in model.parameters()), torch.device("cpu"))
            self.weights = nn.Parameter(torch.full((experts,), 1.0 / experts, device=device))

    def trainable(self, model: nn.Module) -> list[nn.Parameter]:
        """The mixing weights before the softmax, shape ``(E,)``."""
        return [self.weights]

    def reset(self) -> None:
        """Back to equal weights and the first views."""
        with torch.no_grad():
            self.weights.fill_(1.0 / max(1, len(self.weights)))
        self.step.zero_()
        self.frozen.fill_(False)
        self.warned.fill_(False)
        self.observed.fill_(False)

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """Logits of the mixture with the present weights, shape ``(B, C)``, float32."""
        with torch.no_grad():
            return checked_logits(self._mixed(self._expert_logits(model, x.nan_to_num(0.0, 0.0, 0.0))))

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """One step on the agreement of two views; predict after it, or before.

        Raises:
            InputError: If the mode is transductive and the stream was not shown by :meth:`observe_target`.
        """
        if self.transductive is not None and not bool(self.observed):
            raise InputError(
                "SADE is transductive and has not seen the stream: call observe_target(batches) first, or leave "
                "transductive out"
            )
        if self.transductive is not None or bool(self.frozen):
            return AdapterOutput(self.predict(model, x))
        logits = None if self.predict_after else self.predict(model, x)
        first, second = (self._expert_logits(model, view) for view in self._draw(x))
        loss = self._learn(first, second, updater)
        return AdapterOutput(self.predict(model, x) if logits is None else logits, loss=loss)

    def observe_target(self, model: nn.Module, batches: Iterable[Tensor], updater: Updater) -> None:
        """Learn the mixing weights from the whole stream; does nothing online."""
        how = self.transductive
        if how is None:
            return
        seen = [
            torch.stack([self._expert_logits(model, view) for view in self._draw(x, 2 * how.draws)], dim=1)
            for x in batches
        ]
        if not seen:
            return
        views = torch.cat(seen)
        self.observed.fill_(True)
        generator = torch.Generator().manual_seed(self.seed)
        for epoch in range(how.epochs):
            pair = 2 * (epoch % how.draws)
            order = torch.randperm(len(views), generator=generator).to(views.device)
            for rows in torch.split(order, how.batch_size):
                self._learn(views[rows, pair], views[rows, pair + 1], updater)
            if float(self.mixture().min()) < how.stop_below:
                return

    def mixture(self) -> Tensor:
        """The mixing weights, shape ``(E,)``: positive, with sum 1."""
        return self.weights.detach().softmax(dim=0)

    def scalars(self) -> dict[str, Tensor]:
        """The mixing weight of every expert, in ``[0, 1]``."""
        return {f"weight_{number}": weight for number, weight in enumerate(self.mixture(), start=1)}

    def sit_out(self, model: nn.Module, x: Tensor, updater: Updater) -> None:
        """Contribute zero gradients if other processes have something to learn."""
        if self.transductive is None and not bool(self.frozen) and updater.any(False):
            self.step += 1
            with torch.enable_grad():
                updater.backward(self.weights.sum() * 0.0)
            updater.step()

    def _draw(self, x: Tensor, count: int = 2) -> list[Tensor]:
        seed = (self.seed, int(self.step))
        self.step += 1
        return random_views(x, self.views, seed, count)

    def _expert_logits(self, model: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            logits = model.expert_logits(x)  # type: ignore[operator]
        experts = len(self.weights)
        if not isinstance(logits, Tensor) or logits.dim() != 3 or logits.shape[1] != experts:
            got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(
                f"expert_logits returned {got}: SADE needs a tensor of shape (B, E, C), with E the model's "
                f"num_experts={experts}"
            )
        return logits.float()

    def _mixed(self, expert_logits: Tensor) -> Tensor:
        return (self.weights.softmax(dim=0).unsqueeze(1) * expert_logits).sum(dim=1)

    def _learn(self, first: Tensor, second: Tensor, updater: Updater) -> Tensor:
        updater.any(True)
        with torch.enable_grad():
            mixed = [self._mixed(view) for view in (first, second)]
            loss = -agreement(*mixed)
            if self.entropy_weight > 0.0:
                narrowed = _spread([first.mean(dim=1), second.mean(dim=1)]) - _spread(mixed)
                loss = loss + self.entropy_weight * narrowed.clamp(min=0.0)
            updater.backward(loss)
        updater.step()
        self._watch()
        return loss.detach()

    def _watch(self) -> None:
        mixture = self.mixture()
        if float(mixture.min()) < self.freeze_below:
            self.frozen.fill_(True)
        if float(mixture.max()) > self.dominance and not bool(self.warned):
            self.warned.fill_(True)
            warnings.warn(
                f"SADE: expert {int(mixture.argmax()) + 1} has {float(mixture.max()):.0%} of the mixture; if the "
                "stream is not that one-sided, predictions get worse: compare with the Source adapter, or set "
                "entropy_weight",
                stacklevel=2,
            )


def _spread(views: list[Tensor]) -> Tensor:
    return marginal_entropy(torch.cat(views).softmax(dim=1))
