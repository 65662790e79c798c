"""MEMO: make the mean prediction over views of an image certain, for each image anew."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from tta.adapters.augmix_views import AugMixViews
from tta.adapters.base import Adapter, AdapterOutput, Facts, Updater, checked_logits
from tta.adapters.views import Transform, random_views
from tta.adapters.weight_copy import WeightCopy
from tta.errors import InputError
from tta.functional.marginal import view_marginal_entropy
from tta.functional.normalization import batch_norm_layers, mixed_batch_statistics


class MEMO(Adapter):
    r"""Adapt all parameters to one image by its views, predict it, and go back to the source.

    From source weights, one step lowers the entropy of the mean prediction over ``count`` random views of the image,
    :math:`H\big(\frac1n \sum_i p(\cdot \mid \text{view}_i)\big)`. The plain image is predicted with the result. Then
    source weights come back. So images do not influence each other, batch size does not matter and may be 1, and
    between batches the model is the source. Returned logits are those from after the update; :meth:`predict` gives
    those of the source. Several processes would average the gradients of different images: use one.

    Batch normalisation uses :math:`\frac{N}{N+1}` source and :math:`\frac{1}{N+1}` current statistics, of the views in
    the step and of the single image in the prediction, with :math:`N` the ``prior_strength``. No gradient goes through
    the current ones, and the running ones stay.

    Every image teaches, identical ones alike but for their views. On constant logits the gradient is zero but for
    rounding: as the head trains too, logits of 0 may become 1e-14. After a step skipped for a gradient that is not
    finite the image is predicted with source weights. Views are drawn anew for each image, from ``seed`` and the number
    of images before it; images must lie in ``[0, 1]``, normalisation being part of the model, as views clip what lies
    outside. The cost is ``count`` forward and backward passes for each image.

    Args:
        count: Views per image, at least 1: 64 is published for ImageNet, 32 for CIFAR.
        views: Random transformation of an image ``(C, H, W)`` in ``[0, 1]``, on its device: any callable that draws
            from torch's global generator. Its results must have one size, which the network takes. By default
            :class:`~tta.adapters.augmix_views.AugMixViews`, whose ``crop: resized`` is published for ImageNet.
        steps: Steps per image, at least 1, each with new views.
        prior_strength: :math:`N`, at least 0; 16 is published. ``None`` leaves running statistics as they are.
        carry_optimizer: Keep the optimiser's state from image to image, as the authors' code does: their AdamW (lr
            1e-5, weight decay 0.01, for ResNeXt-101 and RVT) then takes smaller first steps than a new one. Plain SGD
            has no state. By default each image begins with a new optimiser, so that no image depends on another.
        seed: Non-negative seed of the views.

    Raises:
        InputError: For a value out of range.

    References:
        MEMO: Test Time Robustness via Adaptation and Augmentation, NeurIPS 2022, section 3, eq. (1)-(2),
        https://arxiv.org/abs/2110.09506, and the authors' code (commit 228b290), from which the step does not differ.
        The popular re-implementation takes 0.1 in place of 1/17 for the share of current statistics, SGD with Nesterov
        momentum 0.9 (whose first step is 1.9 times as long), and never asks for eval mode, so that stochastic depth is
        on in networks that come in training mode; dropout and stochastic depth are off here, as in the authors' code.
    """

    facts = Facts(
        needs_gradients=True,
        steps_per_batch=1,
        predicts_after=True,
        forwards=65,
        backwards=64,
        one_process=True,
        augments=True,
        trains="all parameters, for each image anew",
        paper="https://arxiv.org/abs/2110.09506",
    )
    """Steps are per image, which is the method's batch."""

    images_seen: Tensor

    def __init__(
        self,
        count: int = 64,
        views: Transform | None = None,
        steps: int = 1,
        prior_strength: float | None = 16.0,
        carry_optimizer: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if count < 1 or steps < 1 or seed < 0:
            raise InputError(f"count={count}, steps={steps}, seed={seed}: need count >= 1, steps >= 1 and seed >= 0")
        if prior_strength is not None and not prior_strength >= 0.0:
            raise InputError(
                f"prior_strength={prior_strength}: need at least 0, or null for the source's statistics alone"
            )
        self.count = count
        self.views = AugMixViews() if views is None else views
        self.steps = steps
        self.prior_strength = prior_strength
        self.carry_optimizer = carry_optimizer
        self.seed = seed
        self.facts = replace(
            type(self).facts, steps_per_batch=steps, forwards=count * steps + 1, backwards=count * steps
        )
        self.source = WeightCopy()
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))

    def prepare(self, model: nn.Module) -> None:
        """Eval mode; all parameters require gradients; the source weights are remembered."""
        model.eval()
        model.requires_grad_(True)
        self.source.fill(model)

    def reset(self) -> None:
        """Views are drawn as at the start; nothing else is kept from image to image."""
        self.images_seen.zero_()

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """Adapt to every image by itself and predict it."""
        outputs = [self._adapt_to(model, image, updater) for image in torch.split(x, 1)]
        logits, losses = zip(*outputs, strict=True)
        return AdapterOutput(torch.cat(logits), loss=torch.stack(losses).mean())

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """Logits ``(B, C)`` of the source, each image with its own share in the statistics of batch normalisation."""
        if self.prior_strength is None or not batch_norm_layers(model):
            return super().predict(model, x)
        with self._statistics(model):
            return torch.cat([super(MEMO, self).predict(model, image) for image in torch.split(x, 1)])

    def _adapt_to(self, model: nn.Module, image: Tensor, updater: Updater) -> tuple[Tensor, Tensor]:
        before = None if self.carry_optimizer else updater.snapshot()
        loss = image.new_zeros(())
        try:
            with self._statistics(model):
                for step in range(self.steps):
                    views = self._draw(image, step)
                    with torch.enable_grad():
                        loss = view_marginal_entropy(model(views))
                        updater.backward(loss)
                    updater.step()
                with torch.no_grad():
                    logits = checked_logits(model(image))
        finally:
            self.source.write_to(model)
            if before is not None:
                updater.restore(before)
        self.images_seen += 1
        return logits, loss.detach()

    def _draw(self, image: Tensor, step: int) -> Tensor:
        seed = (self.seed, int(self.images_seen), step)
        if isinstance(self.views, AugMixViews):
            together = self.views
            return random_views(image, lambda one: together(one.expand(self.count, *one.shape)), seed, 1)[0][0]
        return torch.cat(random_views(image, self.views, seed, self.count))

    @contextmanager
    def _statistics(self, model: nn.Module) -> Iterator[None]:
        mixed = self.prior_strength is not None
        share = 1.0 / (self.prior_strength + 1.0) if self.prior_strength is not None else 0.0
        with mixed_batch_statistics(model, share, accumulate=False) if mixed else nullcontext():
            yield
