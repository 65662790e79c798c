"""Meta-DMoE: one step of a student towards what experts of other domains make of a new one."""

from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, Facts, Updater, checked_logits
from tta.adapters.domain_experts import DomainExpertsModel, domain_experts
from tta.errors import InputError


class MetaDMoE(Adapter):
    """Take one step per domain towards the aggregated features of the experts, then predict with it.

    Images are gathered until there are ``support`` of them. Then the student's features take one step on their mean
    squared distance from the aggregator's, over all feature parameters, affine ones of normalisation included, and
    the batch at hand and all later ones are predicted with the result; images that came before were predicted by the
    student as it was. The head, the experts and the aggregator stay. Everything runs in eval mode, as it was trained.

    :meth:`reset` begins a new domain: use protocol ``per_domain``, or ``episodic`` where boundaries are not known,
    with ``support`` no larger than a batch. Under ``continual`` only the first domain teaches. The step size is the
    learning rate of plain SGD: the ``inner_lr`` of training, or less where unseen domains are further from the target
    than the training domains were. Labels, logits and their entropy play no part, so a classifier that always says the
    same still takes the step.

    Args:
        support: Images of a domain that the step learns from, as many as in training (the paper has 24 to 75);
            ``None`` takes the first batch whole. Images of a batch beyond it are predicted, not learnt from.
        steps: Steps per domain, each on the next ``support`` images, at most one per batch. Training prepares for one.

    Raises:
        InputError: For a value out of range, a model without experts, or features of different sizes.

    References:
        Meta-DMoE: Adapting to Domain Shift by Meta-Distillation from Mixture-of-Experts, NeurIPS 2022, algorithm 1,
        https://arxiv.org/abs/2210.03885. Differs from the authors' code, which takes a first batch of exactly the
        support size: here the support may fill over several batches, or be a part of one.
    """

    facts = Facts(
        needs_gradients=True,
        steps_per_batch=1,
        needs_companion=True,
        predicts_after=True,
        smallest_domain=24,
        forwards=2,
        backwards=1,
        trains="all parameters of the student but its head",
        paper="https://arxiv.org/abs/2210.03885",
    )

    growing = ("images",)
    of_own_samples = ("images",)
    images: Tensor
    taken: Tensor

    def __init__(self, support: int | None = 24, steps: int = 1) -> None:
        super().__init__()
        if (support is not None and support < 1) or steps < 1:
            raise InputError(f"support={support}, steps={steps}: need both >= 1, or support=null for a whole batch")
        self.support = support
        self.steps = steps
        self.facts = replace(type(self).facts, smallest_domain=support or 1)
        self.register_buffer("images", torch.empty(0))
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))

    def prepare(self, model: nn.Module) -> None:
        """Eval mode; only the student's features require gradients.

        Raises:
            InputError: If the model has no experts and aggregator.
        """
        parameters = domain_experts(model).feature_parameters()
        model.eval()
        model.requires_grad_(False)
        for parameter in parameters.values():
            parameter.requires_grad_(True)

    def trainable(self, model: nn.Module) -> list[nn.Parameter]:
        """The student's parameters without its head."""
        return list(domain_experts(model).feature_parameters().values())

    def reset(self) -> None:
        """Forget the images gathered and the steps taken: a new domain begins."""
        self.images = self.images.new_empty(0)
        self.taken.zero_()

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """Gather, take the step where the support is full, and predict."""
        if int(self.taken) < self.steps:
            wanted = len(x) if self.support is None else self.support - len(self.images)
            self.images = torch.cat([self.images, x[:wanted].detach()]) if len(self.images) else x[:wanted].clone()
        loss = self._step(model, updater)
        with torch.no_grad():
            return AdapterOutput(checked_logits(model(x)), loss=loss)

    def sit_out(self, model: nn.Module, x: Tensor, updater: Updater) -> None:
        """Take the step if the support was full and this process waited for the others."""
        self._step(model, updater)

    def scalars(self) -> dict[str, Tensor]:
        """Images gathered for the next step, and steps taken in this domain."""
        gathered = torch.tensor(float(len(self.images)), device=self.taken.device)
        return {"support_images": gathered, "steps_taken": self.taken.float()}

    def _step(self, model: nn.Module, updater: Updater) -> Tensor | None:
        """Step once all processes have what they need; gradients are exchanged by all or by none."""
        missing = len(self.images) < (self.support or 1)
        if int(self.taken) == self.steps or updater.any(missing):
            return None
        loss = self._distance(cast(DomainExpertsModel, model))
        updater.backward(loss)
        if updater.step():
            self.taken += 1
        self.images = self.images.new_empty(0)
        return loss.detach()

    def _distance(self, model: DomainExpertsModel) -> Tensor:
        with torch.no_grad():
            target = model.aggregate(self.images)
        with torch.enable_grad():
            features = model(self.images, features=True)
            if features.shape != target.shape:
                raise InputError(
                    f"features of the student have shape {tuple(features.shape)} and those of the aggregator "
                    f"{tuple(target.shape)}: student and experts must be of one architecture"
                )
            return F.mse_loss(features.float(), target.float())
