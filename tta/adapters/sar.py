"""SAR: sharpness-aware and reliable entropy minimisation."""

import torch
from torch import Tensor, nn

from tta.adapters.base import AdapterOutput, Facts, ResetScope, Updater
from tta.adapters.entropy_minimization import (
    check_positive,
    entropy_margin,
    mean_or_zero,
)
from tta.adapters.first_pass import FirstPass, nobody
from tta.adapters.select import Select, published_layers
from tta.adapters.selective_minimization import SelectiveMinimization
from tta.errors import InputError
from tta.functional.entropy import softmax_entropy
from tta.functional.normalization import batch_statistics_only
from tta.functional.sharpness import perturb_to_worst_case, restore_parameters


class SAR(SelectiveMinimization):
    r"""Minimise the entropy of reliable samples, and its sharpness; reset the model when entropy gets too low.

    A sample is *reliable* when its entropy is below ``margin * ln C``. One step: the gradient of the mean reliable
    entropy, a move to the worst point within ``rho``, the gradient there over the samples that are still reliable,
    back, and an optimiser step with it. A moving average of that second loss below ``reset_threshold`` resets
    everything to the source.

    Returned logits are those from before the update. When no sample is reliable, before or after the move (also on
    constant logits, whose entropy is maximal), no step is taken and the average stays. A batch of one is reliable or
    is not.

    Args:
        margin: Entropy margin as a share of ``ln C``, above 0.
        rho: Radius of the sharpness-aware move, at least 0.
        reset_threshold: Average entropy, in nats, below which the model is reset; 0 never resets. Absolute, as
            published: 0.2 is 3 % of ``ln 1000`` but 9 % of ``ln 10``, so easy data with few classes may want less.
        select: Layers whose parameters adapt. By default the first three quarters of the normalisation layers: the
            paper leaves the top layers alone, being the most sensitive (on ViT-B this is its very choice).
        published: Behave as the authors' code (commit 20f6e24), for comparisons: layers chosen by its name rules
            unless ``select`` is given, train mode, the average and the optimiser's momentum survive a reset,
            and a batch without reliable samples still steps on momentum. There the threshold is 0.2 whatever is
            passed; here ``reset_threshold`` is honoured.

    Raises:
        InputError: For a value out of range.

    References:
        Towards Stable Test-Time Adaptation in Dynamic Wild World, ICLR 2023, algorithm 1,
        https://arxiv.org/abs/2302.12400.
    """

    facts = Facts(
        needs_gradients=True,
        reads_gradients=True,
        steps_per_batch=1,
        forwards=2,
        backwards=2,
        trains="affine parameters of the lower three quarters of the normalisation layers",
        paper="https://arxiv.org/abs/2302.12400",
    )

    entropy_ema: Tensor

    def __init__(
        self,
        margin: float = 0.4,
        rho: float = 0.05,
        reset_threshold: float = 0.2,
        select: Select | None = None,
        published: bool = False,
    ) -> None:
        if select is None:
            select = Select(predicate=published_layers) if published else Select(stop=0.75)
        super().__init__(select)
        check_positive(margin=margin)
        if rho < 0.0 or reset_threshold < 0.0:
            raise InputError(f"rho={rho}, reset_threshold={reset_threshold}: need both >= 0")
        self.margin = margin
        self.rho = rho
        self.reset_threshold = reset_threshold
        self.published = published
        self.register_buffer("entropy_ema", torch.tensor(torch.nan))

    def prepare(self, model: nn.Module) -> None:
        """As all entropy minimisation; in train mode when ``published``."""
        super().prepare(model)
        if self.published:
            model.train()
            batch_statistics_only(model)

    def reset(self) -> None:
        """Forget the moving average of the entropy, and how many samples were reliable."""
        super().reset()
        self.entropy_ema.fill_(torch.nan)

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """One sharpness-aware step on the reliable samples."""
        first = self.passes.take(model, x)
        reliable = softmax_entropy(first.logits) < entropy_margin(self.margin, first.logits)
        self.passes.observe(reliable, updater)
        loss = self._step(model, first, reliable, updater) if self._proceed(reliable, updater) else None
        return AdapterOutput(first.logits, loss=loss, reliable=reliable)

    def scalars(self) -> dict[str, Tensor]:
        """The moving average of the reliable entropy, in nats; NaN before the first."""
        return {"entropy_ema": self.entropy_ema.clone()}

    def sit_out(self, model: nn.Module, x: Tensor, updater: Updater) -> None:
        """Go through both passes with zero gradients if other processes learn."""
        self.passes.observe(nobody(x), updater)
        none = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        if self._proceed(none, updater):
            self._step(model, self.passes.take(model, x.nan_to_num(0.0, 0.0, 0.0)), none, updater)

    def _proceed(self, reliable: Tensor, updater: Updater) -> bool:
        return updater.any(bool(reliable.any()) or self.published)

    def _step(self, model: nn.Module, first: FirstPass, reliable: Tensor, updater: Updater) -> Tensor | None:
        with torch.enable_grad():
            logits = first.graph(reliable)
            updater.backward(mean_or_zero(softmax_entropy(logits), logits))
            return self._step_at_worst_case(model, first, reliable, updater)

    def _step_at_worst_case(
        self, model: nn.Module, first: FirstPass, reliable: Tensor, updater: Updater
    ) -> Tensor | None:
        parameters = self.trainable(model)
        before = perturb_to_worst_case(parameters, self.rho)
        if before is None:
            updater.step()
            return None
        try:
            logits = first.again(reliable)
            entropy = softmax_entropy(logits)
            still = entropy.detach() < entropy_margin(self.margin, logits)
            proceed = self._proceed(still, updater)
            loss = mean_or_zero(entropy[still], logits)
            if proceed:
                updater.backward(loss)
        finally:
            restore_parameters(parameters, before)
        if not proceed:
            updater.discard()
            return None
        updater.step()
        return self._average(loss.detach(), bool(still.any()), updater)

    def _average(self, loss: Tensor, counts: bool, updater: Updater) -> Tensor | None:
        total = updater.mean(torch.stack([loss if counts else torch.zeros_like(loss), loss.new_tensor(float(counts))]))
        if total[1] == 0:
            return None
        mean = total[0] / total[1]
        first = torch.isnan(self.entropy_ema)
        self.entropy_ema.copy_(torch.where(first, mean, 0.9 * self.entropy_ema + 0.1 * mean))
        return mean

    def wants_reset(self) -> ResetScope | None:
        """Whether the moving average fell below the threshold."""
        if not bool(self.entropy_ema < self.reset_threshold):
            return None
        return ResetScope.WEIGHTS if self.published else ResetScope.ALL
