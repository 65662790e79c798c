"""Supervised training of the source model."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from tta.errors import InputError
from tta.modules.checks import checked_forward
from tta.modules.schedules import with_schedule
from tta.modules.sharding import shard
from tta.modules.weights import load_weights


class SourceTraining(LightningModule):
    """Train a classifier on labelled source images with cross entropy.

    Args:
        backbone: Classifier that maps images ``(B, C, H, W)`` in ``[0, 1]`` to logits ``(B, K)``; any ``nn.Module``.
        optimizer: Optimiser of all parameters; AdamW with lr 1e-3 and weight decay 0.05 by default.
        lr_scheduler: Learning rate schedule, stepped once an epoch; constant by default.
        label_smoothing: Share of the target spread over all classes, in ``[0, 1)``.
        num_classes: Number of classes; taken from the data by the command line.
        weights: File with weights to start from.

    Raises:
        InputError: If weights do not fit or cannot be read, or the model gives another number of classes.
    """

    def __init__(
        self,
        backbone: nn.Module,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.05),
        lr_scheduler: LRSchedulerCallable | None = None,
        label_smoothing: float = 0.0,
        num_classes: int = 1000,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing < 1.0:
            raise InputError(f"label_smoothing={label_smoothing}: need 0 <= label_smoothing < 1")
        self.backbone = backbone
        self.optimizer_factory = optimizer
        self.lr_scheduler_factory = lr_scheduler
        self.label_smoothing = label_smoothing
        self.num_classes = num_classes
        if weights is not None:
            load_weights(backbone, weights)
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_calibration = MulticlassCalibrationError(num_classes)

    def configure_model(self) -> None:
        """Share the parameters out over processes, where the strategy is ``ModelParallelStrategy``."""
        shard(self.backbone, self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(B, K)``."""
        return checked_forward(self.backbone, x, self.num_classes)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Cross entropy of a batch of ``image`` (B, C, H, W) and ``label`` (B,) int64."""
        loss = F.cross_entropy(self(batch["image"]), batch["label"], label_smoothing=self.label_smoothing)
        size = len(batch["label"])
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Loss and accuracy on held-out source images."""
        logits = self(batch["image"])
        self.val_accuracy(logits, batch["label"])
        self.log("val/loss", F.cross_entropy(logits, batch["label"]), batch_size=len(logits), sync_dist=True)
        self.log("val/accuracy", self.val_accuracy, prog_bar=True)

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Accuracy and calibration error."""
        logits = self(batch["image"])
        self.test_accuracy(logits, batch["label"])
        self.test_calibration(logits.softmax(dim=1), batch["label"])
        self.log("test/accuracy", self.test_accuracy)
        self.log("test/ece", self.test_calibration)

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """Optimiser, and schedule if there is one."""
        return with_schedule(self.optimizer_factory(self.parameters()), self.lr_scheduler_factory)
