"""Training of experts for different test priors."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassStatScores

from tta.adapters.experts import expert_count
from tta.errors import InputError
from tta.functional.experts import PRIORS, prior_offsets, shot_groups, skill_diverse_loss
from tta.modules.checks import run_on_images
from tta.modules.schedules import with_schedule
from tta.modules.sharding import shard
from tta.modules.weights import load_weights


class ExpertTraining(LightningModule):
    """Train the experts of a classifier on long-tailed images, each for a test prior of its own.

    Validation and test log the accuracy of the mean logits, of each expert (``accuracy_expert_1``, ...), and of the
    mean logits on classes with many, medium and few training images, averaged over these classes. A group of which no
    image was seen is not logged.

    Args:
        backbone: Classifier with ``num_experts`` and ``expert_logits(x)``, from images ``(B, C, H, W)`` in ``[0, 1]``
            to logits ``(B, E, K)``.
        optimizer: Optimiser of all parameters; SGD with lr 0.1, Nesterov momentum 0.9 and weight decay 5e-4 by default,
            as published for CIFAR at batch 128.
        lr_scheduler: Learning rate schedule, stepped once an epoch; constant by default.
        priors: Test prior of each expert: ``source``, ``uniform``, ``inverse``, or the probability of each class.
        tau: Strength of ``inverse``: 1 trains for the mirrored training prior, 2 (published for CIFAR-100 and
            ImageNet) for one that is steeper. Above 1 with few epochs that expert is left confident and wrong, and
            adaptation by agreement then chooses it on every stream.
        class_counts: Training images of each class; taken from the data module by default.
        thresholds: Bounds of few, medium and many training images, such as ``[20, 100]``; thirds of the classes by
            frequency by default.
        num_classes: Number of classes; taken from the data by the command line.
        weights: File with weights to start from.

    Raises:
        InputError: If the backbone has no experts or not one for each prior, if class counts are missing, of the wrong
            number, or zero, or if weights do not fit or cannot be read.

    References:
        Self-Supervised Aggregation of Diverse Experts (SADE), NeurIPS 2022, https://arxiv.org/abs/2107.09249. The
        authors choose the epoch by test accuracy on CIFAR; here weights are those of the last epoch.
    """

    offsets: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(
            p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
        ),
        lr_scheduler: LRSchedulerCallable | None = None,
        priors: Sequence[str | list[float]] = PRIORS,
        tau: float = 2.0,
        class_counts: list[int] | None = None,
        thresholds: tuple[int, int] | None = None,
        num_classes: int = 1000,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        _check_experts(backbone, priors)
        self.backbone = backbone
        self.optimizer_factory = optimizer
        self.lr_scheduler_factory = lr_scheduler
        self.priors = list(priors)
        self.tau = tau
        self.class_counts = class_counts
        self.thresholds = thresholds
        self.num_classes = num_classes
        if weights is not None:
            load_weights(backbone, weights)
        names = ("mean", *(f"expert_{number}" for number in range(1, len(self.priors) + 1)))
        scores: dict[str, Metric | MetricCollection] = {
            name: MulticlassStatScores(num_classes, average=None) for name in names
        }
        self.scores = MetricCollection(scores, compute_groups=False)

    def setup(self, stage: str) -> None:
        """Take class counts from the data module, and the offsets from them."""
        counts = self.class_counts
        if counts is None:
            counts = getattr(getattr(self.trainer, "datamodule", None), "class_counts", None)
        if counts is None:
            raise InputError(
                "class counts are missing: give class_counts, or a data module with class_counts, such as any "
                "SourceDataModule"
            )
        if len(counts) != self.num_classes:
            raise InputError(f"class_counts: {len(counts)} numbers for {self.num_classes} classes; give one for each")
        if min(counts) < 1:
            raise InputError(
                f"class_counts={list(counts)}: every class needs one training image at least; lower the data's "
                "imbalance_ratio"
            )
        self.counts = torch.tensor(counts)
        offsets = prior_offsets(self.counts, self.priors, self.tau)
        self.register_buffer("offsets", offsets.to(self.device, torch.float32), persistent=False)

    def configure_model(self) -> None:
        """Share the parameters out over processes, where the strategy is ``ModelParallelStrategy``."""
        shard(self.backbone, self, "expert_logits")

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every expert, shape ``(B, E, K)``."""
        logits = run_on_images(self.backbone.expert_logits, x)  # type: ignore[arg-type]
        if logits.shape[1:] != (len(self.priors), self.num_classes):
            raise InputError(
                f"the backbone gives expert logits of shape {tuple(logits.shape)} for {len(self.priors)} experts and "
                f"{self.num_classes} classes: set the backbone's num_experts and num_classes"
            )
        return logits

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Skill-diverse loss of a batch of ``image`` (B, C, H, W) and ``label`` (B,) int64."""
        loss = skill_diverse_loss(self(batch["image"]), batch["label"], self.offsets)
        size = len(batch["label"])
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Count what is right on held-out source images."""
        self._count(batch)

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Count what is right."""
        self._count(batch)

    def on_validation_epoch_end(self) -> None:
        """Log accuracies."""
        self._log("val")

    def on_test_epoch_end(self) -> None:
        """Log accuracies."""
        self._log("test")

    def _count(self, batch: Mapping[str, Tensor]) -> None:
        logits = self(batch["image"]).detach()
        self.scores["mean"].update(logits.mean(dim=1), batch["label"])
        for number, predicted in enumerate(logits.unbind(dim=1), start=1):
            self.scores[f"expert_{number}"].update(predicted, batch["label"])

    def _log(self, stage: str) -> None:
        for name, score in self.scores.items():
            figures = score.compute()
            right, seen = figures[:, 0], figures[:, 4]
            suffix = "" if name == "mean" else f"_{name}"
            self.log(f"{stage}/accuracy{suffix}", right.sum() / seen.sum().clamp(min=1), prog_bar=name == "mean")
            if name == "mean":
                self._log_groups(stage, right, seen)
            score.reset()

    def _log_groups(self, stage: str, right: Tensor, seen: Tensor) -> None:
        for group, classes in shot_groups(self.counts, self.thresholds).items():
            shown = classes.to(seen.device)
            shown = shown[seen[shown] > 0]
            if len(shown):
                self.log(f"{stage}/accuracy_{group}", (right[shown] / seen[shown]).mean())

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """Optimiser, and schedule if there is one."""
        return with_schedule(self.optimizer_factory(self.parameters()), self.lr_scheduler_factory)


def _check_experts(backbone: nn.Module, priors: Sequence[str | list[float]]) -> None:
    experts = expert_count(backbone, "give a backbone")
    if experts != len(priors):
        raise InputError(
            f"the backbone has {experts} experts and there are {len(priors)} priors: give one prior for each expert"
        )
