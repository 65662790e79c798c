"""Training of the aggregator of Meta-DMoE by itself."""

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from tta.adapters.domain_experts import DomainExpertsModel, domain_experts
from tta.modules.checks import checked_forward
from tta.modules.expert_groups import domain_of, domains_of, experts_of_domains
from tta.modules.schedules import with_schedule
from tta.modules.sharding import shard
from tta.modules.weights import load_weights


class AggregatorPretraining(LightningModule):
    """Train the aggregator and its head with cross entropy on what the frozen experts see.

    Args:
        backbone: A student with trained experts and an aggregator, such as ``models.DomainExperts``; the student stays
            as it is.
        optimizer: Optimiser of the aggregator; Adam with lr 1e-3 by default (the paper's pre-trained ResNets and
            DenseNets have 1e-6 to 1e-5).
        lr_scheduler: Learning rate schedule, stepped once an epoch; constant by default, x 0.96 or 0.98 in the paper.
        groups: Names of the domains that each expert was trained on. Where given, batches must be of one domain and
            its expert is hidden, as it will be in meta-distillation; by default all experts are seen, as in the
            authors' code.
        num_classes: Number of classes; taken from the data by the command line.
        weights: File with weights of the whole backbone to start from.

    Raises:
        InputError: If the backbone has no experts, weights do not fit, the class count differs, or groups do not fit
            the data.

    References:
        Meta-DMoE, NeurIPS 2022, section 4.4, https://arxiv.org/abs/2210.03885.
    """

    def __init__(
        self,
        backbone: nn.Module,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3),
        lr_scheduler: LRSchedulerCallable | None = None,
        groups: list[list[str]] | None = None,
        num_classes: int = 1000,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        domain_experts(backbone)
        self.backbone = backbone
        self.optimizer_factory = optimizer
        self.lr_scheduler_factory = lr_scheduler
        self.groups = groups
        self.num_classes = num_classes
        if weights is not None:
            load_weights(backbone, weights)
        backbone.requires_grad_(False)
        self.model.aggregator.requires_grad_(True)
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.train()

    @property
    def model(self) -> DomainExpertsModel:
        """The backbone as what it must be."""
        return cast(DomainExpertsModel, self.backbone)

    def setup(self, stage: str) -> None:
        """Which expert saw which domain."""
        if self.groups is not None:
            domains = domains_of(getattr(self.trainer, "datamodule", None))
            self.expert_of = experts_of_domains(self.groups, domains, len(self.model.experts))

    def configure_model(self) -> None:
        """Share the parameters out over processes, where the strategy is ``ModelParallelStrategy``."""
        shard(self.backbone, self, "aggregated_logits")

    def train(self, mode: bool = True) -> "AggregatorPretraining":
        """Only the aggregator is ever in train mode."""
        super().train(mode)
        self.backbone.eval()
        self.model.aggregator.train(mode)
        return self

    def forward(self, x: Tensor, hidden: int | None = None) -> Tensor:
        """Logits of the aggregator's head, shape ``(B, K)``."""
        return checked_forward(lambda images: self.model.aggregated_logits(images, hidden), x, self.num_classes)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Cross entropy of a batch of ``image`` (B, C, H, W) and ``label`` (B,) int64."""
        hidden = None if self.groups is None else self.expert_of[domain_of(batch)]
        loss = F.cross_entropy(self(batch["image"], hidden), batch["label"])
        size = len(batch["label"])
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Loss and accuracy of all experts together on held-out images."""
        logits = self(batch["image"])
        self.val_accuracy(logits, batch["label"])
        self.log("val/loss", F.cross_entropy(logits, batch["label"]), batch_size=len(logits), sync_dist=True)
        self.log("val/accuracy", self.val_accuracy, prog_bar=True)

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """Optimiser of the aggregator, and schedule if there is one."""
        return with_schedule(self.optimizer_factory(self.model.aggregator.parameters()), self.lr_scheduler_factory)
