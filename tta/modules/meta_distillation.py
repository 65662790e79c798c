"""Meta-training of Meta-DMoE: learn to learn from the experts of other domains in one step."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.func import functional_call

from tta.adapters.domain_experts import DomainExpertsModel, domain_experts
from tta.errors import InputError
from tta.functional.meta import distillation_step, meta_distillation_loss
from tta.modules.checks import checked_forward
from tta.modules.expert_groups import domain_of, domains_of, experts_of_domains
from tta.modules.processes import averaged_backward
from tta.modules.sharding import check_whole_parameters
from tta.modules.weights import load_weights


class MetaDistillation(LightningModule):
    """Train student and aggregator so that one unlabelled step towards the aggregated experts classifies better.

    Every batch is of one domain: its first ``support`` images give the step, without labels, towards a target from
    which the expert of that domain is hidden; cross entropy on the others goes back through the step to the student's
    features, its head and the aggregator. All is in eval mode: running statistics stay, dropout is off.

    With several processes each takes the step on a batch of its own, and the gradients of the outer step are averaged:
    an outer step then learns from as many batches as there are processes.

    Args:
        backbone: A student with trained experts and a pre-trained aggregator, such as ``models.DomainExperts``.
        groups: Names of the domains that each expert was trained on, in the order of the experts.
        support: Images of a batch that the step learns from; the rest are the query. The adapter's must be the same.
        inner_lr: Size of the step; the learning rate of adaptation is the same or smaller. The squared distance is a
            mean over features, so it goes with their number and scale.
        optimizer: Optimiser of the student; Adam with lr 3e-5 by default (the paper: 1e-6 to 1e-4).
        aggregator_optimizer: Optimiser of the aggregator; Adam with lr 1e-4 by default (the paper: 1e-6 to 3e-6).
        lr_scheduler: Schedule of both, stepped once an epoch; constant by default, x 0.96 in the paper.
        hide: Hide the expert of the current domain, as published; ``False`` is the paper's comparison.
        warm_start: Batches in which, before meta-training, the student learns to give the aggregated features, with
            cross entropy beside; 0 as published. It brings the two feature spaces together.
        num_classes: Number of classes; taken from the data by the command line.
        weights: File with weights of the whole backbone to start from, such as those of aggregator pre-training.

    Raises:
        InputError: If the backbone has no experts, weights do not fit, a value is out of range, the data has one domain
            only, the groups do not fit it, a batch mixes domains, none leaves a query, or the run has another precision
            than 32-true.

    References:
        Meta-DMoE, NeurIPS 2022, algorithm 1 and eq. (5) to (7), https://arxiv.org/abs/2210.03885. As the authors' code:
        one domain per outer step, one inner step on all feature parameters, a target that is not detached. Differs
        from it: both optimisers keep their moments over epochs, where that code makes new ones at each.
    """

    seen: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        groups: list[list[str]],
        support: int = 24,
        inner_lr: float = 1e-3,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=3e-5),
        aggregator_optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-4),
        lr_scheduler: LRSchedulerCallable | None = None,
        hide: bool = True,
        warm_start: int = 0,
        num_classes: int = 1000,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if support < 1 or not inner_lr > 0.0 or warm_start < 0:
            raise InputError(
                f"support={support}, inner_lr={inner_lr}, warm_start={warm_start}: need support >= 1, inner_lr > 0 and "
                "warm_start >= 0"
            )
        self.automatic_optimization = False
        domain_experts(backbone)
        self.backbone = backbone
        self.groups = groups
        self.support = support
        self.inner_lr = inner_lr
        self.optimizer_factories = (optimizer, aggregator_optimizer)
        self.lr_scheduler_factory = lr_scheduler
        self.hide = hide
        self.warm_start = warm_start
        self.num_classes = num_classes
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        if weights is not None:
            load_weights(backbone, weights)
        backbone.requires_grad_(False)
        for part in (self.model.student, self.model.aggregator):
            part.requires_grad_(True)
        self.train()

    @property
    def model(self) -> DomainExpertsModel:
        """The backbone as what it must be."""
        return cast(DomainExpertsModel, self.backbone)

    def setup(self, stage: str) -> None:
        """Which expert saw which domain; refuse batches without a query, and lower precision."""
        check_whole_parameters(self.trainer, "MetaDistillation", "differentiates its own step")
        data = getattr(self.trainer, "datamodule", None)
        self.expert_of = experts_of_domains(self.groups, domains_of(data), len(self.model.experts))
        batch_size = getattr(data, "batch_size", None)
        if batch_size is not None and batch_size <= self.support:
            raise InputError(
                f"support={self.support}: leaves no query in a batch of {batch_size}; use a larger batch_size or a "
                "smaller support"
            )
        if self.trainer.precision != "32-true":
            raise InputError(
                f"meta-distillation differentiates its own step, in precision 32-true, not {self.trainer.precision}: "
                "use --trainer.precision 32-true"
            )

    def train(self, mode: bool = True) -> "MetaDistillation":
        """Everything stays in eval mode, as when it adapts."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the student before any step, shape ``(B, K)``."""
        return checked_forward(self.backbone, x, self.num_classes)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """One outer step on a batch of ``image`` (B, C, H, W), ``label`` (B,) and ``domain`` (B,), int64."""
        hidden = self.expert_of[domain_of(batch)] if self.hide else None
        warm = int(self.seen) < self.warm_start
        has_query = len(batch["label"]) > self.support
        if not warm and not self.trainer.strategy.reduce_boolean_decision(has_query, all=True):
            return
        loss = self._warm_start_loss(batch, hidden) if warm else self._meta_loss(batch, hidden)
        student, aggregator = self.optimizers()  # type: ignore[attr-defined]
        student.zero_grad()
        aggregator.zero_grad()
        averaged_backward(self, loss, [*self.model.student.parameters(), *self.model.aggregator.parameters()])
        student.step()
        if not warm:
            aggregator.step()
        self.seen += 1
        size = len(batch["label"])
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)

    def _meta_loss(self, batch: Mapping[str, Tensor], hidden: int | None) -> Tensor:
        images, labels, size = batch["image"], batch["label"], self.support
        return meta_distillation_loss(
            self._features,
            self._logits,
            self.model.feature_parameters(),
            (images[:size], self.model.aggregate(images[:size], hidden)),
            (images[size:], labels[size:]),
            self.inner_lr,
        )

    def _warm_start_loss(self, batch: Mapping[str, Tensor], hidden: int | None) -> Tensor:
        target = self.model.aggregate(batch["image"], hidden).detach()
        distance = F.mse_loss(self._features({}, batch["image"]), target)
        return F.cross_entropy(self._logits({}, batch["image"]), batch["label"]) + distance

    def _features(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return self._call(parameters, x, features=True)

    def _logits(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return checked_forward(partial(self._call, parameters), x, self.num_classes)

    def _call(self, parameters: Mapping[str, Tensor], x: Tensor, **options: bool) -> Tensor:
        result: Tensor = functional_call(self.backbone, dict(parameters), (x,), options)
        return result

    def on_train_epoch_end(self) -> None:
        """Step the schedules once meta-training has begun; say so if no batch left a query."""
        if not int(self.seen):
            raise InputError(f"support={self.support}: no batch of a domain has more images; use a smaller support")
        schedules = self.lr_schedulers()
        if isinstance(schedules, list) and int(self.seen) > self.warm_start:
            for schedule in schedules:
                schedule.step()  # type: ignore[call-arg]  # plateaus need a metric, the others do not

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self._queries, self._right = 0, {"before": 0, "after": 0}

    @torch.inference_mode(False)
    @torch.enable_grad()
    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Accuracy on the query of every domain in a batch of held-out images, before the step and after it."""
        for domain, images, labels in self._by_domain(batch):
            size = self.support
            if len(labels) <= size:
                continue
            target = self.model.aggregate(images[:size], self.expert_of[domain] if self.hide else None)
            parameters = self.model.feature_parameters()
            after = distillation_step(self._features, parameters, images[:size], target.detach(), self.inner_lr)
            for name, values in (("before", parameters), ("after", after)):
                right = self._logits(values, images[size:]).argmax(dim=1) == labels[size:]
                self._right[name] += int(right.sum())
            self._queries += len(labels) - size

    def on_validation_epoch_end(self) -> None:
        """Log both accuracies over the queries of all processes, if there was one."""
        counts = torch.tensor([self._queries, *self._right.values()], device=self.device)
        queries, *right = torch.as_tensor(self.trainer.strategy.reduce(counts, reduce_op="sum")).tolist()
        for name, count in zip(self._right, right, strict=True) if queries else ():
            self.log(f"val/accuracy_{name}", count / queries, prog_bar=True)

    def _by_domain(self, batch: Mapping[str, Tensor]) -> Iterator[tuple[int, Tensor, Tensor]]:
        domains = batch["domain"].tolist()
        for domain in sorted(set(domains)):
            rows = [row for row, other in enumerate(domains) if other == domain]
            yield domain, batch["image"][rows].clone(), batch["label"][rows].clone()

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """One optimiser for the student and one for the aggregator, with schedules if there are."""
        parts = (self.model.student, self.model.aggregator)
        optimizers = [make(list(part.parameters())) for make, part in zip(self.optimizer_factories, parts, strict=True)]
        if self.lr_scheduler_factory is None:
            return optimizers
        return optimizers, [self.lr_scheduler_factory(optimizer) for optimizer in optimizers]
