"""DeYO: entropy minimisation on samples whose prediction depends on the shape of the object."""

import torch
from torch import Tensor, nn

from tta.adapters.base import AdapterOutput, Facts, Updater
from tta.adapters.entropy_minimization import check_positive, entropy_margin, mean_or_zero
from tta.adapters.first_pass import FirstPass, nobody
from tta.adapters.select import Select
from tta.adapters.selective_minimization import SelectiveMinimization
from tta.adapters.subset import subset_logits
from tta.errors import InputError
from tta.functional.entropy import softmax_entropy
from tta.functional.patches import shuffled_patches
from tta.seeds import derived_seed


class DeYO(SelectiveMinimization):
    r"""Entropy minimisation on samples that are certain, and less so once their patches are shuffled.

    A sample is *certain* when its entropy is below ``margin * ln C``. Certain samples go through the model again with
    their patches shuffled, each in its own order; what the probability of the predicted class loses by that is the
    pseudo-label probability difference, PLPD. Samples that lose more than ``plpd_threshold`` are *reliable*: their
    prediction looks at shapes, not at textures or backgrounds. The loss is their mean of :math:`w H` with
    :math:`w = \exp(E_0 - H) + \exp(\mathrm{PLPD})` and :math:`E_0` the ``weight_margin`` times ``ln C``.

    Returned logits are those from before the update. With no certain sample there is no second pass, and with no
    reliable one (also on constant logits, which shuffling does not change) no step, not even on momentum. A batch of
    one is reliable or is not; the authors double the learning rate there. Identical samples are shuffled differently
    and judged one by one. Images may have any range.

    With batch normalisation the second pass takes its statistics from the certain samples alone, as published. Where
    they leave one value per channel (a single certain sample, and a last map of one pixel) the published code stops
    with an error; here the whole batch goes through shuffled then.

    Args:
        margin: Entropy below which a sample is certain, as a share of ``ln C``, above 0.
        weight_margin: :math:`E_0` as a share of ``ln C``, above 0.
        plpd_threshold: PLPD above which a sample is reliable, in ``[-1, 1)``: published are 0.3 for a mild stream, 0.2
            for mixed domains, shifted labels and batches of one, 0.5 for spurious correlations; -1 lets all pass.
        patches: Patches along each side of the image, at least 2.
        select: Layers whose parameters adapt. By default the first three quarters of the normalisation layers;
            ``Select(predicate=published_layers)`` (:mod:`tta.adapters.select`) is the rule by names of the authors'
            code, which is the same on ViT-B.
        seed: Non-negative seed of the shuffling.

    Raises:
        InputError: For a value out of range, or inputs that are not of shape ``(B, C, H, W)``.

    References:
        Entropy is not Enough for Test-Time Adaptation: From the Perspective of Disentangled Factors, ICLR 2024,
        eq. (8) and (10), https://arxiv.org/abs/2403.07366. Differs from the authors' code (commit 3d7d289): margins
        scale with the number of classes, as in their script, where their class has those of 1000; dropout stays off;
        images that are not square keep their shape when resized; ``reset()`` works, where theirs raises. The
        re-implementation in test-time-adaptation (commit 8b2ed63) takes the threshold 0.2 everywhere and Adam on CIFAR.
    """

    facts = Facts(
        needs_gradients=True,
        steps_per_batch=1,
        forwards=2,
        backwards=1,
        trains="affine parameters of the lower three quarters of the normalisation layers",
        paper="https://arxiv.org/abs/2403.07366",
    )

    shuffles: Tensor

    def __init__(
        self,
        margin: float = 0.5,
        weight_margin: float = 0.4,
        plpd_threshold: float = 0.3,
        patches: int = 4,
        select: Select = Select(stop=0.75),  # noqa: B008  frozen
        seed: int = 0,
    ) -> None:
        super().__init__(select)
        check_positive(margin=margin, weight_margin=weight_margin)
        if not -1.0 <= plpd_threshold < 1.0:
            raise InputError(f"plpd_threshold={plpd_threshold}: need -1 <= plpd_threshold < 1")
        if patches < 2 or seed < 0:
            raise InputError(f"patches={patches}, seed={seed}: need patches >= 2 and seed >= 0")
        self.margin = margin
        self.weight_margin = weight_margin
        self.plpd_threshold = plpd_threshold
        self.patches = patches
        self.seed = seed
        self.register_buffer("shuffles", torch.tensor(0))

    def reset(self) -> None:
        """Back to the first shuffle, and forget how many samples were reliable."""
        super().reset()
        self.shuffles.zero_()

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """One step on the reliable samples, if there are any."""
        first = self.passes.take(model, x)
        certain = softmax_entropy(first.logits) < entropy_margin(self.margin, first.logits)
        reliable, loss = certain, None
        if updater.any(bool(certain.any())):
            difference = self._probability_difference(model, x, first.logits, certain)
            reliable = difference > self.plpd_threshold
            if updater.any(bool(reliable.any())):
                loss = self._step(first, reliable, difference[reliable], updater)
        self.passes.observe(reliable, updater)
        return AdapterOutput(first.logits, loss=loss, reliable=reliable)

    def _step(self, first: FirstPass, reliable: Tensor, difference: Tensor, updater: Updater) -> Tensor:
        with torch.enable_grad():
            logits = first.graph(reliable)
            entropy = softmax_entropy(logits)
            weights = (entropy_margin(self.weight_margin, logits) - entropy.detach()).exp() + difference.exp()
            loss = mean_or_zero(weights * entropy, logits)
            updater.backward(loss)
        updater.step()
        return loss.detach()

    def sit_out(self, model: nn.Module, x: Tensor, updater: Updater) -> None:
        """Contribute zero gradients if other processes have something to learn, and count shuffles as they do."""
        if updater.any(False):
            self.shuffles += 1
            super().sit_out(model, x, updater)
        self.passes.observe(nobody(x), updater)

    @torch.no_grad()
    def _probability_difference(self, model: nn.Module, x: Tensor, logits: Tensor, certain: Tensor) -> Tensor:
        """PLPD of the certain samples, shape ``(B,)``; NaN for the others, which no threshold lets pass."""
        state = derived_seed(self.seed, int(self.shuffles))
        self.shuffles += 1
        difference = torch.full_like(logits[:, 0], torch.nan)
        if not bool(certain.any()):
            return difference

        def shuffle(images: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(state)
            orders = torch.rand(len(images), self.patches**2, generator=generator).argsort(dim=1)
            return shuffled_patches(images, orders.to(images.device))

        shuffled = subset_logits(model, x, certain, shuffle).float().softmax(dim=1)
        probability, predicted = logits[certain].softmax(dim=1).max(dim=1)
        difference[certain] = probability - shuffled.gather(1, predicted.unsqueeze(1)).squeeze(1)
        return difference
