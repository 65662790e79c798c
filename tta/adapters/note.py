"""NOTE: entropy minimisation on a memory that stays balanced on temporally correlated streams."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, Facts, Updater, checked_logits
from tta.adapters.prediction_balanced_memory import PredictionBalancedReservoir
from tta.adapters.select import Select, layer_census
from tta.errors import InputError
from tta.functional.entropy import softmax_entropy
from tta.functional.normalization import batch_norm_layers
from tta.seeds import derived_seed


class NOTE(Adapter):
    r"""Predict each image alone; every ``period`` images, one step on a memory balanced over predicted classes.

    An image is predicted with running statistics (eval mode), so no image depends on the others of its batch, and
    then offered to the memory, prediction-balanced reservoir sampling, under its predicted class. After every
    ``period`` images the mean entropy over the whole memory is lowered by one step on the affine parameters of batch
    normalisation, which for that pass uses the memory's statistics and moves the running ones towards them by
    ``bn_momentum``. Memory being balanced in classes and time, both stay sound where the stream is sorted by class.

    Returned logits are those from before the update that an image triggers. The images of a batch between two updates
    go through the network together, which is the same up to rounding; updates fall where they would fall one image at
    a time, also inside a batch. So batch size does not matter and may be 1. An image that fills no place in memory is
    predicted all the same. Every image in memory teaches; on constant logits the gradient is zero, and only running
    statistics move. A memory of one image, of which there may be no batch statistics, teaches nothing. A step skipped
    for a gradient that is not finite leaves running statistics as they were, and an image whose logits are not finite
    is not remembered. Images must keep one size until a reset: others are refused.

    The network should have been trained with instance-aware batch normalisation (IABN): ``models.with_iabn`` or the
    parts ``configs/model/*_iabn.yaml``, whose statistics follow each image. That is the larger half of the published
    gains. On plain batch normalisation the method runs, with running statistics that follow the stream slowly: a
    strong shift is then normalised away only after hundreds of updates. Memory and running statistics are those of one
    process.

    Args:
        memory: Images held, at least 2; 64 is published for all data sets.
        period: Images between two updates, at least 1; 64 is published.
        bn_momentum: Share of the memory's statistics in the running ones at each update, in ``[0, 1]``; 0.01 is
            published.
        seed: Non-negative seed of what the memory draws.

    Raises:
        InputError: For a value out of range, a model without batch normalisation that keeps running statistics, or
            images of another size than those in the memory.

    References:
        NOTE: Robust Continual Test-time Adaptation Against Temporal Correlation, NeurIPS 2022, algorithm 1,
        https://arxiv.org/abs/2208.05117. Differs from the authors' code (commit 363ce91): their loss is the mean over
        images *and classes*, a ``C``-th of the entropy, which Adam hardly notices and SGD does: multiply their learning
        rate for SGD by ``1 / C`` here; they add 1e-6 inside the logarithm; dropout, on during their updates, stays
        off; they forward each image twice, for the memory and for the prediction, and drop the last images of a stream
        that fill no period; a memory above their loader's batch size (128 for CIFAR, 256 for ImageNet) is split there
        and one batch here. Their variant for i.i.d. streams (``NOTE*``: the last 64 images as memory, batch
        statistics, Adam with lr 1e-3) is Tent at batch 64 on an IABN network. Re-implementations differ more: ttab's
        leaves IABN out, adapts at every batch and takes SGD with the loss divided by ``C``.
    """

    facts = Facts(
        needs_gradients=True,
        steps_per_batch=1,
        needs_batch_norm=True,
        smallest_domain=64,
        forwards=2,
        backwards=1,
        changes_statistics=True,
        one_process=True,
        trains="affine parameters of batch normalisation layers",
        paper="https://arxiv.org/abs/2208.05117",
    )
    """Passes per sample on average over a period; one step per period, so more than one where a batch spans several."""

    images_seen: Tensor

    def __init__(self, memory: int = 64, period: int = 64, bn_momentum: float = 0.01, seed: int = 0) -> None:
        super().__init__()
        if memory < 2 or period < 1 or seed < 0:
            raise InputError(f"memory={memory}, period={period}, seed={seed}: need memory >= 2, period >= 1, seed >= 0")
        if not 0.0 <= bn_momentum <= 1.0:
            raise InputError(f"bn_momentum={bn_momentum}: need 0 <= bn_momentum <= 1; 0.01 is published")
        self.period = period
        self.bn_momentum = bn_momentum
        self.seed = seed
        passes = math.ceil(memory / period)
        self.facts = replace(type(self).facts, smallest_domain=max(2, period), forwards=1 + passes, backwards=passes)
        self.memory = PredictionBalancedReservoir(memory)
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))

    def prepare(self, model: nn.Module) -> None:
        """Eval mode; the affine parameters of batch normalisation require gradients.

        Raises:
            InputError: If the model has no batch normalisation layer, or one that keeps no running statistics.
        """
        layers = batch_norm_layers(model)
        if not layers:
            raise InputError(
                f"NOTE needs batch normalisation and the model has {layer_census(model)}: use Tent, EATA or SAR"
            )
        model.eval()
        for name, layer in layers:
            if layer.running_mean is None:
                raise InputError(
                    f"NOTE predicts with running statistics and layer {name!r} keeps none: use a network trained with "
                    "track_running_stats=True"
                )
            layer.track_running_stats = True
        Select(types=("batch_norm",)).freeze_rest(model)

    def reset(self) -> None:
        """Empty the memory and begin a new period."""
        self.memory.reset()
        self.images_seen.zero_()

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """Predict up to the next update, take it, and so on to the end of the batch.

        Raises:
            InputError: If the images are of another size than those in the memory.
        """
        self.memory.check(x)
        logits: list[Tensor] = []
        losses: list[Tensor] = []
        rest = x
        while len(rest):
            rows = self.period - int(self.images_seen) % self.period
            logits.append(self.predict(model, rest[:rows]))
            self._remember(rest[:rows], logits[-1])
            rest = rest[rows:]
            if int(self.images_seen) % self.period == 0 and len(self.memory) > 1:
                losses.append(self._learn(model, updater))
        return AdapterOutput(torch.cat(logits), loss=torch.stack(losses).mean() if losses else None)

    def scalars(self) -> dict[str, Tensor]:
        """Images in memory, and predicted classes that have some."""
        images, classes = len(self.memory), self.memory.counts().count_nonzero()
        return {"memory_images": torch.tensor(float(images), device=classes.device), "memory_classes": classes.float()}

    def _remember(self, x: Tensor, logits: Tensor) -> None:
        """Offer the images to the memory; one whose logits overflowed would spoil every later update."""
        usable = torch.isfinite(softmax_entropy(logits)).tolist()  # true of masked classes, whose logits are -inf
        for image, label, offered in zip(x, logits.argmax(dim=1).tolist(), usable, strict=True):
            if offered:
                generator = torch.Generator().manual_seed(derived_seed(self.seed, int(self.images_seen)))
                self.memory.add(image, label, logits.shape[1], generator)
            self.images_seen += 1

    def _learn(self, model: nn.Module, updater: Updater) -> Tensor:
        layers = [layer for _, layer in batch_norm_layers(model)]
        before = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers(recurse=False)]
        with torch.enable_grad(), self._memory_statistics(model):
            logits = model(self.memory.images)
            checked_logits(logits)
            loss = softmax_entropy(logits).mean()
            updater.backward(loss)
        if not updater.step() or not all(bool(torch.isfinite(buffer).all()) for buffer, _ in before):
            for buffer, value in before:
                buffer.copy_(value)
        return loss.detach()

    @contextmanager
    def _memory_statistics(self, model: nn.Module) -> Iterator[None]:
        """Batch normalisation as in training, with the method's momentum; the counter of batches stays."""
        layers = [layer for _, layer in batch_norm_layers(model)]
        usual = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
        counted = [None if count is None else count.clone() for _, count in usual]
        try:
            for layer in layers:
                layer.train()
                layer.momentum = self.bn_momentum
            yield
        finally:
            for layer, (momentum, count), value in zip(layers, usual, counted, strict=True):
                layer.eval()
                layer.momentum = momentum
                if count is not None and value is not None:
                    count.copy_(value)
