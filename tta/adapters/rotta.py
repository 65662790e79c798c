"""RoTTA: a teacher, slow statistics and a balanced memory against correlated streams."""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, Facts, Updater, checked_logits
from tta.adapters.category_balanced_memory import CategoryBalancedMemory
from tta.adapters.select import Select
from tta.adapters.views import CoTTAViews, Transform, random_views
from tta.adapters.weight_copy import WeightCopy
from tta.errors import InputError
from tta.functional.entropy import softmax_entropy
from tta.functional.robust_normalization import robust_batch_statistics
from tta.functional.soft_targets import soft_cross_entropy


class RoTTA(Adapter):
    r"""Predict with a teacher, remember a balanced choice of samples, and learn from that memory now and then.

    Every sample is predicted by the teacher with its running statistics and offered to the memory
    (:class:`~tta.adapters.category_balanced_memory.CategoryBalancedMemory`) under its predicted class and entropy.
    After every ``update_every`` samples the student learns one step from the whole memory: the cross-entropy of random
    views against the teacher's prediction of the stored images, weighted by :math:`\mathrm{sigmoid}(-\text{age}/N)`,
    N the capacity. The teacher then follows, :math:`(1-\nu)\,\theta_t + \nu\,\theta_s`. In that step batch
    normalisation of both uses, and keeps, :math:`(1-\alpha)\,\text{running} + \alpha\,\text{memory}` statistics, each
    their own.

    Returned are the teacher's logits, from before the batch's updates. Samples are counted one by one: a batch may
    contain no update, one, or several, and a batch of one is nothing special. Costs are declared on average over a
    stream, with a full memory; a batch larger than ``update_every`` takes more than one step. All finite samples are
    offered but those whose logits are not finite, which would never leave the memory; identical ones differ by age
    alone and settle in their class's share. On constant logits nothing is learnt, as the last layer passes no gradient
    on. Images must lie in ``[0, 1]``, normalisation being part of the model, as views clip what lies outside, and keep
    one size until a reset: others are refused. A step that was skipped for its gradients leaves weights and running
    statistics of both as they were. Memory and running statistics are those of one process.

    Args:
        alpha: Share of the memory in the statistics at an update, in ``[0, 1]``.
        nu: Share of the student in the teacher at an update, in ``[0, 1]``.
        capacity: Images in the memory, at least 1. They are part of every checkpoint.
        update_every: Samples between updates, at least 1; published is the capacity. A stream, or a domain after whose
            end everything is reset, that has fewer teaches nothing.
        lambda_t: Weight of age in the memory's score, at least 0.
        lambda_u: Weight of uncertainty in the memory's score, at least 0.
        views: Random transformation of an image ``(C, H, W)`` in ``[0, 1]``, on its device: any callable that draws
            from torch's global generator. Its results must have one size, which the network takes. By default the
            published one.
        select: Layers whose parameters adapt. The authors take BatchNorm only, and so refuse other networks; that
            LayerNorm and GroupNorm train too is the popular re-implementation's choice and ours.
        seed: Non-negative seed of the views.

    Raises:
        InputError: For a value out of range, a model without a layer to adapt, or images of another size than those
            in the memory.

    References:
        Robust Test-Time Adaptation in Dynamic Scenarios, CVPR 2023, section 3, https://arxiv.org/abs/2303.13899.
        Differs from the authors' code (commit 67e34c9): dropout and stochastic depth stay off at updates; every image
        of the memory has its own draw of a view, where theirs draws one for all (but for the noise); entropies are
        exact, where theirs add 1e-6 inside the logarithm. The popular re-implementation stops with a ``TypeError`` in
        full precision (commit 8b2ed63).
    """

    facts = Facts(
        needs_gradients=True,
        steps_per_batch=1,
        smallest_domain=64,
        forwards=3,
        backwards=1,
        changes_statistics=True,
        one_process=True,
        augments=True,
        trains="affine parameters of normalisation layers",
        paper="https://arxiv.org/abs/2303.13899",
    )

    seen: Tensor

    def __init__(
        self,
        alpha: float = 0.05,
        nu: float = 0.001,
        capacity: int = 64,
        update_every: int = 64,
        lambda_t: float = 1.0,
        lambda_u: float = 1.0,
        views: Transform | None = None,
        select: Select = Select(),  # noqa: B008  frozen
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0.0 <= alpha <= 1.0 or not 0.0 <= nu <= 1.0:
            raise InputError(f"alpha={alpha}, nu={nu}: need both in [0, 1]")
        if update_every < 1 or seed < 0:
            raise InputError(f"update_every={update_every}, seed={seed}: need update_every >= 1 and seed >= 0")
        self.memory = CategoryBalancedMemory(capacity, lambda_t, lambda_u)
        self.alpha = alpha
        self.nu = nu
        self.update_every = update_every
        self.views = CoTTAViews() if views is None else views
        self.select = select
        self.seed = seed
        self.facts = replace(
            type(self).facts,
            smallest_domain=update_every,
            forwards=1 + math.ceil(2 * capacity / update_every),
            backwards=math.ceil(capacity / update_every),
        )
        self.teacher = WeightCopy()
        self.source = WeightCopy()
        self.register_buffer("seen", torch.tensor(0))

    def prepare(self, model: nn.Module) -> None:
        """Eval mode; only the selected parameters require gradients; the teacher starts here.

        Raises:
            InputError: If no layer matches the selection.
        """
        model.eval()
        self.select.freeze_rest(model)
        self.teacher.fill(model)
        self.source.fill(model)

    def reset(self) -> None:
        """The teacher goes back to the source; an empty memory."""
        self.teacher.copy_from(self.source)
        self.memory.clear()
        self.seen.zero_()

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """Logits of the teacher with its running statistics, shape ``(B, C)``, float32."""
        with torch.no_grad():
            return checked_logits(self.teacher.run(model, x.nan_to_num(0.0, 0.0, 0.0)))

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """Predict, fill the memory sample by sample, and learn from it wherever its time has come.

        Raises:
            InputError: If the images are of another size than those in the memory.
        """
        self.memory.check(x)
        output = self.predict(model, x)
        labels, uncertainties = output.argmax(dim=1), softmax_entropy(output)
        losses = []
        for rows in self._up_to_updates(len(x)):
            kept = torch.isfinite(uncertainties[rows])  # NaN is never the worse score: it would stay for ever
            self.memory.add(x[rows][kept], labels[rows][kept], uncertainties[rows][kept], output.shape[1])
            self.seen += rows.stop - rows.start
            if int(self.seen) % self.update_every == 0 and self.memory.filled:
                losses.append(self._learn(model, updater))
        return AdapterOutput(output, loss=torch.stack(losses).mean() if losses else None)

    def scalars(self) -> dict[str, Tensor]:
        """Samples in the memory, and predicted classes that they are of."""
        labels = self.memory.labels[self.memory.labels >= 0]
        return {
            "memory_samples": torch.tensor(float(len(labels)), device=labels.device),
            "memory_classes": torch.tensor(float(len(set(labels.tolist()))), device=labels.device),
        }

    def _up_to_updates(self, count: int) -> Iterator[slice]:
        start, missing = 0, self.update_every - int(self.seen) % self.update_every
        while start < count:
            stop = min(count, start + missing)
            yield slice(start, stop)
            start, missing = stop, self.update_every

    def _learn(self, model: nn.Module, updater: Updater) -> Tensor:
        images, ages = self.memory.contents()
        before = [(buffer, buffer.clone()) for buffer in (*model.buffers(), *self.teacher.buffers())]
        views = random_views(images, self.views, (self.seed, int(self.seen)), count=1)[0]
        with robust_batch_statistics(model, self.alpha):
            with torch.no_grad():
                target = checked_logits(self.teacher.run(model, images))
            with torch.enable_grad():
                logits = model(views)
        with torch.enable_grad():
            loss = (torch.sigmoid(-ages) * soft_cross_entropy(logits, target)).mean()
            updater.backward(loss)
        if updater.step():
            self.teacher.follow(model, 1.0 - self.nu)
        else:
            for buffer, value in before:
                buffer.copy_(value)
        return loss.detach()
