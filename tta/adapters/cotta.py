"""CoTTA: a student that follows an averaged teacher and forgets what it learnt at random."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, Facts, Updater, checked_logits, told_if_too_few
from tta.adapters.entropy_minimization import no_contribution
from tta.adapters.select import Select, layer_census
from tta.adapters.views import CoTTAViews, Transform, random_views
from tta.adapters.weight_copy import WeightCopy
from tta.errors import InputError
from tta.functional.normalization import batch_statistics_only
from tta.functional.soft_targets import reverse_cross_entropy, soft_cross_entropy
from tta.seeds import derived_seed


class CoTTA(Adapter):
    r"""Learn from a weight-averaged teacher that looks at several views, and restore random weights to the source.

    One step: the student's loss against the teacher's prediction, an optimiser step, the teacher's moving average
    :math:`m\,\theta_t + (1-m)\,\theta_s`, and every trained number of the student goes back to its source value with
    probability ``restore``. The optimiser's momentum stays as it is. The teacher looks at the images themselves while
    the source model is sure of them, that is while the mean of its largest probabilities is at least ``threshold``;
    else at ``views_count`` random views, whose logits are averaged.

    Returned are the teacher's logits, from before the update. Student, teacher and source model normalise with batch
    statistics, so on BatchNorm networks each layer must see more than one value per channel; on others a batch of one
    works. Every finite sample teaches. On constant logits both losses have a gradient of exactly zero. So has
    the plain cross-entropy while student and teacher are equal, as at the start, and see the same images: nothing is
    learnt before the first batch of views. After a step that was skipped for its gradients the teacher and the weights
    stay as they are.

    Images must lie in ``[0, 1]``, normalisation being part of the model: views clip what lies outside.

    The views cost most: 32 further passes of every image that are taken only below the threshold, and the drawing of
    them, which takes one image at a time.

    Args:
        threshold: Confidence of the source model below which the teacher averages over views, at least 0: 0.1 on
            ImageNet, 0.92 on CIFAR-10, 0.72 on CIFAR-100. 0 never does; above 1 always.
        restore: Probability, in ``[0, 1]``, that a trained number goes back to its source value at a step: 0.001 on
            ImageNet, 0.01 on CIFAR.
        momentum: The teacher's :math:`m`, in ``[0, 1]``.
        loss: ``symmetric`` is half the cross-entropy and half the reverse cross-entropy, as published for ImageNet;
            ``cross_entropy`` the first alone, as in the paper and published for CIFAR.
        views_count: Views of each image, at least 1.
        views: Random transformation of an image ``(C, H, W)`` in ``[0, 1]``, on its device: any callable that draws
            from torch's global generator. Its results must have one size, which the network takes. By default the
            published one.
        select: What trains. ``weight_and_bias`` is the published choice, all parameters of these two names: on a
            vision transformer it leaves out the class token, position embeddings, layer scales and Swin's bias tables
            (and the ``in_proj_weight`` of torch's own attention), which are then neither trained nor restored. ``all``
            takes every parameter; a :class:`~tta.adapters.Select` the layers it says.
        seed: Non-negative seed of the views and of what is restored.

    Raises:
        InputError: For a value out of range, or a model in which nothing trains.

    References:
        Continual Test-Time Domain Adaptation, CVPR 2022, section 3, https://arxiv.org/abs/2203.13591. The paper puts
        its threshold to every image; the authors' code (commit c212a20) and this to the mean of a batch. Differs from
        the code: dropout and stochastic depth stay off; every image has its own draw of a view, where theirs draws one
        for a whole batch (but for the noise); views are made only where they are used (their CIFAR code makes them
        always); what is restored comes from a seed. The popular re-implementation predicts single images from a
        sliding window; here a batch of one learns from that one. Learning rates published for ResNets make vision
        transformers collapse: use a smaller one.
    """

    facts = Facts(
        needs_gradients=True,
        steps_per_batch=1,
        forwards=34,
        backwards=1,
        augments=True,
        trains="all weights and biases",
        paper="https://arxiv.org/abs/2203.13591",
    )

    step: Tensor
    confidence: Tensor

    def __init__(
        self,
        threshold: float = 0.1,
        restore: float = 0.001,
        momentum: float = 0.999,
        loss: Literal["symmetric", "cross_entropy"] = "symmetric",
        views_count: int = 32,
        views: Transform | None = None,
        select: Literal["weight_and_bias", "all"] | Select = "weight_and_bias",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not threshold >= 0.0 or views_count < 1 or seed < 0:
            raise InputError(
                f"threshold={threshold}, views_count={views_count}, seed={seed}: need threshold >= 0, views_count >= 1 "
                "and seed >= 0"
            )
        if not 0.0 <= restore <= 1.0 or not 0.0 <= momentum <= 1.0:
            raise InputError(f"restore={restore}, momentum={momentum}: need both in [0, 1]")
        if loss not in ("symmetric", "cross_entropy"):
            raise InputError(f"loss={loss!r}: choose symmetric or cross_entropy")
        if not isinstance(select, Select) and select not in ("weight_and_bias", "all"):
            raise InputError(f"select={select!r}: choose weight_and_bias or all, or give a Select")
        self.threshold = threshold
        self.restore = restore
        self.momentum = momentum
        self.loss = loss
        self.views_count = views_count
        self.views = CoTTAViews() if views is None else views
        self.select = select
        self.seed = seed
        augments = threshold > 0.0
        self.facts = replace(type(self).facts, forwards=2 + (views_count if augments else 1), augments=augments)
        self.teacher = WeightCopy()
        self.source = WeightCopy()
        self.register_buffer("step", torch.tensor(0))
        self.register_buffer("confidence", torch.tensor(torch.nan))

    def prepare(self, model: nn.Module) -> None:
        """Eval mode with batch statistics; the selected parameters train; teacher and source model start here.

        Raises:
            InputError: If nothing in the model matches the selection.
        """
        model.eval()
        batch_statistics_only(model)
        if isinstance(self.select, Select):
            self.select.freeze_rest(model)
        else:
            names = ("weight", "bias")
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(self.select == "all" or name.rpartition(".")[2] in names)
        if not self.trainable(model):
            raise InputError(f"select={self.select!r} matches no parameter; the model has {layer_census(model)}")
        self.teacher.fill(model)
        self.source.fill(model)

    def reset(self) -> None:
        """The teacher goes back to the source, and draws start anew."""
        self.teacher.copy_from(self.source)
        self.step.zero_()
        self.confidence.fill_(torch.nan)

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """Logits of the teacher, shape ``(B, C)``, float32, with the views of the next step where it takes some."""
        with told_if_too_few(len(x)):
            return self._teach(model, x.nan_to_num(0.0, 0.0, 0.0))[0]

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """Predict with the teacher; one step of the student towards it; teacher and source pull on."""
        with torch.enable_grad():
            logits = model(x)
            checked_logits(logits)
            target, confidence = self._teach(model, x)
            updater.any(True)
            loss = self._loss(logits, target).mean()
            updater.backward(loss)
        self._finish(model, updater)
        self.confidence.copy_(confidence)
        return AdapterOutput(target, loss=loss.detach())

    def sit_out(self, model: nn.Module, x: Tensor, updater: Updater) -> None:
        """Contribute zero gradients if other processes learn, and follow what they did."""
        if updater.any(False):
            with torch.enable_grad():
                updater.backward(no_contribution(model(x.nan_to_num(0.0, 0.0, 0.0))))
            self._finish(model, updater)

    def scalars(self) -> dict[str, Tensor]:
        """Confidence of the source model in the last batch, which ``threshold`` is put to; NaN before the first."""
        return {"source_confidence": self.confidence.clone()}

    @torch.no_grad()
    def _teach(self, model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        confidence = checked_logits(self.source.run(model, x)).softmax(dim=1).amax(dim=1).mean()
        if not bool(confidence < self.threshold):
            return checked_logits(self.teacher.run(model, x)), confidence
        logits = []
        for number in range(self.views_count):  # one at a time: 32 views of a batch need memory
            view = random_views(x, self.views, (self.seed, int(self.step), number), count=1)[0]
            logits.append(checked_logits(self.teacher.run(model, view)))
        return torch.stack(logits).mean(dim=0), confidence

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        loss = soft_cross_entropy(logits, target)
        return loss if self.loss == "cross_entropy" else 0.5 * (loss + reverse_cross_entropy(logits, target))

    def _finish(self, model: nn.Module, updater: Updater) -> None:
        if updater.step():
            self.teacher.follow(model, self.momentum)
            self._restore_at_random(model)
        self.step += 1

    @torch.no_grad()
    def _restore_at_random(self, model: nn.Module) -> None:
        source = self.source.values()
        seed = derived_seed(self.seed, int(self.step), self.views_count)
        generator = torch.Generator(self.step.device).manual_seed(seed)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                drawn = torch.rand(parameter.shape, generator=generator, device=parameter.device) < self.restore
                parameter.copy_(torch.where(drawn, source[name], parameter))
