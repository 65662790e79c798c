"""Training of a classifier together with the consistency loss by which ITTA adapts it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tta.adapters.blocks import Change, changed_outputs, check_blocks, shapes_after
from tta.adapters.consistency import LearnableConsistency, StyleBank, StyleDraw
from tta.adapters.head import features_of, linear_head
from tta.adapters.itta import KIND
from tta.companion import Companion
from tta.errors import InputError
from tta.functional.alignment import alignment_loss, gradient_correlation
from tta.functional.style import style
from tta.modules.processes import average_gradients, averaged_backward
from tta.modules.sharding import check_whole_parameters
from tta.modules.source_training import SourceTraining
from tta.seeds import derived_seed

Losses = tuple[Tensor, Tensor]


class ITTATraining(SourceTraining):
    """Train a classifier to ignore style, and a consistency loss whose gradients help it to classify.

    Each batch is seen plainly and with mixed styles (MixStyle after one of the style blocks, which of them is drawn).
    The first step, on the whole classifier, minimises the cross entropy of both plus the consistency loss: the mean
    square of ``f_w`` of the difference of their features. The second, on ``f_w`` alone and in a fresh pass, brings the
    gradient of the consistency loss over the feature extractor nearer to that of the cross entropy, both standardised.
    Gradients of gradients make a batch cost about four times that of plain training, and need memory for it.

    Training needs images of two domains at least, best an equal share of each in every batch
    (``batches: every_domain`` of the data): styles are mixed within the batch. After training, ``tta fit`` writes the
    classifier's weights, and a companion with ``f_w``, the names and shapes of the blocks, and the styles of the last
    training images, for :class:`tta.adapters.ITTA`.

    ``train/gradient_correlation`` is the correlation of the two gradients before the second step.

    With several processes each mixes styles within its own batch and compares the two gradients of its own batch; the
    gradients of both steps are averaged. The companion's styles are those of the first process' images.

    As in the authors' code (commit 63794c4): Adam, BatchNorm in eval mode, MixStyle in every batch, ``f_w`` a tenth of
    the learning rate. Departures: any network with a linear head; mixed styles and dropout are drawn from ``seed``;
    the alignment loss is differentiated in full, where the code takes mean and standard deviation as constants, which
    drives ``f_w`` to zero. The code starts from ImageNet weights, so give ``weights`` where BatchNorm is frozen.

    Args:
        backbone: Classifier that maps images ``(B, C, H, W)`` in ``[0, 1]`` to logits ``(B, K)``, with a linear head.
        blocks: Names of the blocks after which maps may be inserted at test time, in order; all residual stages of a
            ResNet as published.
        style_blocks: Names of the blocks after which styles are mixed; the first two of ``blocks`` by default, as
            published. Their outputs are maps ``(B, C, H, W)`` or tokens ``(B, N, D)``.
        input_shape: Shape of an image.
        lr: Learning rate; 5e-5 as published for a pre-trained ResNet-18, 1e-3 for small images.
        consistency_lr: Learning rate of ``f_w``; a tenth of ``lr`` by default, as published.
        weight_decay: Weight decay of the classifier; 0 as published.
        alpha: Parameter of the Beta distribution of the mixing weights; 0.1 as published.
        consistency: Weight of the consistency loss in the first step; 1 as published. 0 trains with mixed styles
            only: no gradients of gradients, and ``f_w`` stays as it is.
        alignment: Weight of the loss of the second step; 0.1 as published. 0 leaves ``f_w`` as it is.
        constant_statistics: Differentiate the alignment loss as the authors' code does, with the gradients' mean and
            standard deviation as constants; see :func:`tta.functional.alignment.alignment_loss` for what that does.
        depth: Maps of ``f_w``; 10 as published.
        freeze_batch_norm: Keep BatchNorm in eval mode, with the running statistics it has, as published.
        bank_size: Images whose styles the companion keeps.
        head: Name of the linear layer that gives the logits; the last one by default.
        seed: Non-negative seed of mixed styles and dropout.
        num_classes: Number of classes; taken from the data by the command line.
        weights: File with weights to start from.

    Raises:
        InputError: If an argument is out of range, a block matches nothing, or weights do not fit.

    References:
        Improved Test-Time Adaptation for Domain Generalization, CVPR 2023, https://arxiv.org/abs/2304.04494.
    """

    steps: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        blocks: list[str],
        style_blocks: list[str] | None = None,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        lr: float = 5e-5,
        consistency_lr: float | None = None,
        weight_decay: float = 0.0,
        alpha: float = 0.1,
        consistency: float = 1.0,
        alignment: float = 0.1,
        constant_statistics: bool = False,
        depth: int = 10,
        freeze_batch_norm: bool = True,
        bank_size: int = 256,
        head: str | None = None,
        seed: int = 0,
        num_classes: int = 1000,
        weights: str | None = None,
    ) -> None:
        super().__init__(backbone, num_classes=num_classes, weights=weights)
        self.automatic_optimization = False
        _check_numbers(lr, consistency_lr, alpha, consistency, alignment, seed)
        self.blocks = check_blocks(backbone, blocks, "blocks")
        chosen = blocks[:2] if style_blocks is None else style_blocks
        self.style_blocks = check_blocks(backbone, chosen, "style_blocks")
        self.input_shape = tuple(input_shape)
        self.shapes = shapes_after(backbone, list(dict.fromkeys([*blocks, *chosen])), input_shape)
        layer = linear_head(backbone, head)
        self.head_name = next(name for name, module in backbone.named_modules() if module is layer)
        self.lr = lr
        self.consistency_lr = lr / 10 if consistency_lr is None else consistency_lr
        self.weight_decay = weight_decay
        self.alpha = alpha
        self.consistency_weight = consistency
        self.alignment = alignment
        self.constant_statistics = constant_statistics
        self.freeze_batch_norm = freeze_batch_norm
        self.seed = seed
        self.f_w = LearnableConsistency(layer.in_features, depth)
        self.bank = StyleBank([_channels(name, *self.shapes[name]) for name in self.style_blocks], bank_size)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    # ---- set-up -------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Refuse data of one domain, and precisions that gradients of gradients do not bear.

        Raises:
            InputError: If one of them is the case.
        """
        if stage != "fit":
            return
        check_whole_parameters(self.trainer, "ITTATraining", "takes gradients of gradients")
        if self.trainer.precision != "32-true":
            raise InputError(
                f"ITTATraining needs precision 32-true, not {self.trainer.precision}: use --trainer.precision 32-true"
            )
        data = getattr(self.trainer, "datamodule", None)
        domains = getattr(data, "domains", [])
        if data is not None and len(domains) < 2:
            raise InputError(
                f"ITTATraining learns from differences between domains and {type(data).__name__} has "
                f"{f'one, {domains[0]!r}' if domains else 'none'}: give it at least two, such as two source_domains of "
                "DomainFolderSource or two domains of CorruptedDomains"
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam on the classifier, and Adam on ``f_w``."""
        classifier = torch.optim.Adam(self.backbone.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        return [classifier, torch.optim.Adam(self.f_w.parameters(), lr=self.consistency_lr)], []

    def train(self, mode: bool = True) -> "ITTATraining":
        """Train mode, but for frozen BatchNorm."""
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def on_train_start(self) -> None:
        """Take these modes: trainers keep those that a module has."""
        self.train()

    # ---- the two steps ------------------------------------------------------------------------------------------

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """One step on the classifier, then one on ``f_w``.

        Args:
            batch: ``image`` (B, C, H, W) and ``label`` (B,) int64.
            batch_idx: Not used.

        Returns:
            Loss of the first step, detached.

        Raises:
            InputError: If the images have another shape than ``input_shape``.
        """
        images, labels = batch["image"], batch["label"]
        if images.shape[1:] != self.input_shape:
            raise InputError(
                f"input_shape={list(self.input_shape)}: the images have shape {list(images.shape[1:])}; set "
                f"--model.init_args.input_shape {list(images.shape[1:])}"
            )
        # Fused attention has no gradients of gradients.
        with torch.random.fork_rng(_cuda(images)), sdpa_kernel(SDPBackend.MATH):
            torch.manual_seed(derived_seed(self.seed, int(self.steps), self.global_rank))
            loss = self._step_on_classifier(images, labels)
            if self.consistency_weight > 0.0:
                self._step_on_consistency(images, labels)
        self.steps += 1
        return loss

    def _step_on_classifier(self, images: Tensor, labels: Tensor) -> Tensor:
        optimizer = self._optimizer(0)
        classification, consistency = self._losses(images, labels, 0)
        loss = classification
        if self.consistency_weight > 0.0:
            loss = loss + self.consistency_weight * consistency
        averaged_backward(self, loss, self.backbone.parameters())
        optimizer.step()
        optimizer.zero_grad()
        self.f_w.zero_grad()
        self._log("loss", classification, labels)
        self._log("consistency", consistency, labels)
        return loss.detach()

    def _step_on_consistency(self, images: Tensor, labels: Tensor) -> None:
        classification, consistency = self._losses(images, labels, 1)
        head = {id(parameter) for parameter in self.backbone.get_submodule(self.head_name).parameters()}
        extractor = [p for p in self.backbone.parameters() if p.requires_grad and id(p) not in head]
        aligned = self.alignment > 0.0
        learnt = torch.autograd.grad(
            consistency, extractor, retain_graph=True, create_graph=aligned, materialize_grads=True
        )
        wanted = torch.autograd.grad(classification, extractor, retain_graph=aligned, materialize_grads=True)
        self._log("gradient_correlation", gradient_correlation(learnt, wanted), labels)
        if not aligned:
            return
        optimizer = self._optimizer(1)
        parameters = list(self.f_w.parameters())
        penalty = self.alignment * alignment_loss(learnt, wanted, self.constant_statistics)
        gradients = torch.autograd.grad(penalty, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        average_gradients(self.trainer, parameters)
        optimizer.step()
        optimizer.zero_grad()

    def _optimizer(self, number: int) -> LightningOptimizer:
        optimizers: Any = self.optimizers()
        chosen: LightningOptimizer = optimizers[number]
        return chosen

    def _log(self, name: str, value: Tensor, labels: Tensor) -> None:
        bar = name == "loss"
        size, value = len(labels), value.detach()
        self.log(f"train/{name}", value, prog_bar=bar, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)

    def _losses(self, images: Tensor, labels: Tensor, part: int) -> Losses:
        """Cross entropy of both passes, and the consistency loss."""
        seed = (self.seed, int(self.steps), part, self.global_rank)
        draw = StyleDraw.make(seed, len(images), len(self.style_blocks), self.alpha, images.device)
        keep: dict[str, Change] = {} if part else {name: partial(self._keep, name) for name in self.style_blocks}
        plain, logits = self._features(images, keep)
        styled, styled_logits = self._features(images, {self.style_blocks[draw.block]: draw.mix})
        classification = F.cross_entropy(logits, labels) + F.cross_entropy(styled_logits, labels)
        return classification, self.f_w.loss(plain, styled)

    def _features(self, images: Tensor, changes: Mapping[str, Change]) -> tuple[Tensor, Tensor]:
        head = linear_head(self.backbone, self.head_name)
        with changed_outputs(self.backbone, changes), features_of(head) as features:
            logits = self(images)
        return features[-1], logits

    def _keep(self, name: str, activations: Tensor) -> Tensor:
        self.bank.add(self.style_blocks.index(name), activations)
        return activations

    def companion(self) -> Companion:
        """What :class:`tta.adapters.ITTA` needs: ``f_w``, styles of the last training images, names and shapes."""
        kept = len(self.bank)
        tensors = {f"consistency.{name}": tensor for name, tensor in self.f_w.state_dict().items()}
        for name, tensor in self.bank.state_dict().items():
            tensors[f"bank.{name}"] = tensor if name == "seen" else tensor[:kept]
        layer = linear_head(self.backbone, self.head_name)
        settings = {
            "blocks": self.blocks,
            "shapes": [self.shapes[name][0] for name in self.blocks],
            "nonnegative": [self.shapes[name][1] for name in self.blocks],
            "style_blocks": self.style_blocks,
            "head": self.head_name,
            "features": layer.in_features,
            "classes": layer.out_features,
        }
        return Companion(KIND, tensors, settings)


def _check_numbers(
    lr: float, consistency_lr: float | None, alpha: float, consistency: float, alignment: float, seed: int
) -> None:
    if lr <= 0.0 or (consistency_lr is not None and consistency_lr <= 0.0) or alpha <= 0.0:
        raise InputError(f"lr={lr}, consistency_lr={consistency_lr}, alpha={alpha}: need all > 0")
    if consistency < 0.0 or alignment < 0.0 or seed < 0:
        raise InputError(f"consistency={consistency}, alignment={alignment}, seed={seed}: need all >= 0")


def _channels(name: str, shape: list[int], nonnegative: bool) -> int:
    """Number of channels of a style block's output."""
    try:
        style(torch.zeros(1, *shape))
    except InputError as error:
        raise InputError(f"style_blocks: {name!r} cannot be used: {error}") from error
    return shape[-1] if len(shape) == 2 else shape[0]


def _cuda(images: Tensor) -> list[torch.device]:
    return [images.device] if images.is_cuda else []
