"""AETTA: accuracy from how often predictions survive dropout."""

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from tta.errors import InputError
from tta.estimates.base import AccuracyEstimate, predict_untouched
from tta.functional.entropy import marginal_entropy
from tta.seeds import derived_seed

RATES = (0.01, 0.9)
HALVINGS = 10


class AETTA(AccuracyEstimate):
    r"""Estimate the error by the disagreement with dropout, corrected for predictions that crowd on few classes.

    With :math:`p^{(i)}` the softmax of the i-th of ``passes`` passes with dropout, :math:`e` the share of them whose
    class is not the predicted one, and :math:`H` the entropy of the mean of all :math:`p^{(i)}`, the error is
    :math:`e / (H / \ln C)^3`, clipped to :math:`[0, 1 - 1/C]` and averaged over batches,
    :math:`0.6\,\text{old} + 0.4\,\text{new}`; the average starts at the first :math:`e`. A collapsing model crowds its
    predictions on few classes, :math:`H` falls, and so does the estimate, although the model grows confident.

    Where dropout sits decides what it costs and how large :math:`e` is. By default it drops features that enter the
    head: one forward pass fetches them and only the head runs again. The authors drop after every stage of a residual
    network (``layers``), which takes ``passes`` forward passes, at rates chosen for each data set: 0.4 for CIFAR-10,
    0.3 for CIFAR-100 and ImageNet-R, 0.2 for ImageNet. The level of the estimate depends on the rate and on the
    network, whose features may be few or many: ``rate=None`` takes the rate, between 0.01 and 0.9, at which the
    estimate on labelled source images (:meth:`observe_source`) is the accuracy there.

    The estimate judges the given predictions. Where the model has learnt from the batch since it predicted it, passes
    run on the weights after that step; with small steps the difference is small. The entropy is taken over at least
    the last ``window`` samples, so that a batch of one is not mistaken for a collapse; the published code takes the
    batch alone, which is the same for batches of ``window`` samples and more.

    A stream that shows one class at a time concentrates predictions as a collapse does, and the estimate is far too
    low there. A model that predicts one class with certainty never disagrees: :math:`e` is therefore taken as at least
    half a disagreement among all passes, so that the estimate is chance level, where the published code says 100 %.
    Predictions that are not finite leave the average as it was. In a model with several heads, or one that changes the
    logits after its last linear layer, name ``layers``. A method that predicts image by image (MEMO) needs them too,
    and adapts in every pass; of a method that predicts with a teacher, the teacher's features go through the head of
    the model itself.

    Args:
        rate: Share of values dropped, in ``(0, 1)``; ``None`` sets it on labelled source images, without ``layers``.
        passes: Passes with dropout, at least 1; 10 are published.
        layers: Names of modules behind whose outputs dropout is put, such as ``("layer1", "layer2", "layer3")``; those
            of modules that contain them may be left out. By default the features in front of the last linear layer.
        exponent: Power of the correction, at least 0; 3 is published, 0 gives the plain disagreement.
        smoothing: Share of the old average, in ``[0, 1)``; 0.6 is published.
        window: Samples, at least 1, over which error and entropy are taken if the batch is smaller.
        seed: Non-negative seed of the dropout.

    Raises:
        InputError: For a value out of range, or a model without a linear layer or without the named ones.

    References:
        AETTA: Label-Free Accuracy Estimation for Test-Time Adaptation, CVPR 2024, https://arxiv.org/abs/2404.01351,
        and its code (commit 322a115), which adds 1e-6 inside the logarithm.
    """

    name = "aetta"
    paper = "https://arxiv.org/abs/2404.01351"

    step: Tensor
    chosen: Tensor
    growing = ("recent",)
    recent: Tensor
    average: Tensor

    def __init__(
        self,
        rate: float | None = 0.2,
        passes: int = 10,
        layers: Sequence[str] | None = None,
        exponent: float = 3.0,
        smoothing: float = 0.6,
        window: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if rate is None and layers is not None:
            raise InputError("rate=None sets the rate of dropout in front of the head alone: give a rate with layers")
        if not 0.0 < (0.5 if rate is None else rate) < 1.0 or not 0.0 <= smoothing < 1.0 or not exponent >= 0.0:
            raise InputError(
                f"rate={rate}, smoothing={smoothing}, exponent={exponent}: AETTA needs 0 < rate < 1, "
                "0 <= smoothing < 1 and exponent >= 0"
            )
        if passes < 1 or window < 1 or seed < 0:
            raise InputError(
                f"passes={passes}, window={window}, seed={seed}: AETTA needs passes >= 1, window >= 1 and seed >= 0"
            )
        self.rate = rate
        self.passes = passes
        self.layers = None if layers is None else tuple(layers)
        self.exponent = exponent
        self.smoothing = smoothing
        self.window = window
        self.seed = seed
        self.forwards = 1 if layers is None else passes
        self.needs_source_labels = rate is None
        self.register_buffer("step", torch.tensor(0))
        self.register_buffer("chosen", torch.tensor(math.nan if rate is None else rate, dtype=torch.float64))
        self.register_buffer("recent", torch.empty(0, 0))
        self.register_buffer("average", torch.tensor(math.nan))

    def observe_source(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the rate, if it was left open, so that the estimate on these images is the accuracy on them.

        Args:
            model: The classifier with source weights, in the modes in which it predicts.
            batches: Held-out images ``(B, ...)`` with their classes ``(B,)``, int64; a few hundred are enough.

        Raises:
            InputError: If there is no image, or the model has no linear layer.
        """
        if self.rate is not None:
            return
        seen = [(*self._features(model, images), labels) for images, labels in batches]
        if not seen:
            raise InputError("AETTA with rate=None got no labelled source image: it needs at least one")
        head = seen[0][0]
        features = torch.cat([entered for _, entered, _ in seen])
        with torch.no_grad():
            logits = head(features).float()
        truth = float((logits.argmax(dim=1) == torch.cat([labels for *_, labels in seen])).float().mean())
        low, high = RATES
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            self.chosen.fill_(middle)
            passes = self._head_passes(head, features, self._generator(features.device))
            wrong, probabilities = self._compare(passes, logits)
            # Over all images at once, whatever their order: loaders may bring one class after the other.
            estimated = 1.0 - float(self._corrected(wrong.mean(), probabilities))
            low, high = (middle, high) if estimated > truth else (low, middle)

    def scores(self, model: nn.Module, x: Tensor, logits: Tensor) -> Tensor:
        """One minus the corrected share of passes that disagree, clipped, for every sample; not smoothed."""
        wrong, probabilities = self._disagreement(model, x, logits)
        return 1.0 - self._corrected(wrong, self._with_recent(probabilities))

    def update(self, model: nn.Module, x: Tensor, logits: Tensor) -> Tensor:
        """The smoothed estimate with this batch taken in, scalar in ``[0, 1]``."""
        wrong, probabilities = self._disagreement(model, x, logits)
        self.step += 1
        rows = torch.cat([wrong.unsqueeze(1), probabilities], dim=1)
        if bool(torch.isfinite(rows).all()):
            rows = self._with_recent(rows)
            self.recent = rows[-self.window :].clone()
            error = rows[:, 0].mean()
            if bool(self.average.isnan()):
                self.average.copy_(error)
            corrected = self._corrected(error, rows[:, 1:]).to(self.average.device)
            self.average.mul_(self.smoothing).add_(corrected, alpha=1.0 - self.smoothing)
        return 1.0 - self.average

    def reset(self) -> None:
        """Forget the average and the recent samples, and draw from the beginning."""
        self.step.zero_()
        self.recent = self.recent.new_empty(0, 0)
        self.average.fill_(math.nan)

    def _with_recent(self, rows: Tensor) -> Tensor:
        missing = self.window - len(rows)
        if missing <= 0 or not len(self.recent):
            return rows
        return torch.cat([self.recent[-missing:, -rows.shape[1] :], rows])

    def _corrected(self, error: Tensor, probabilities: Tensor) -> Tensor:
        spread = marginal_entropy(probabilities).clamp(0.0, 1.0) ** self.exponent
        least = 0.5 / (self.passes * len(probabilities))
        return (error.clamp(min=least) / spread.clamp(min=1e-12)).clamp(max=1.0 - 1.0 / probabilities.shape[1])

    def _disagreement(self, model: nn.Module, x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        if bool(self.chosen.isnan()):
            raise InputError(
                "AETTA with rate=None has no rate yet: call observe_source(model, batches) with held-out source images "
                "and their labels first, or give a rate"
            )
        generator = self._generator(x.device)
        if self.layers is None:
            return self._compare(self._head_passes(*self._features(model, x), generator), logits)
        return self._compare(self._whole_passes(model, x, generator), logits)

    def _generator(self, device: torch.device) -> torch.Generator:
        state = derived_seed(self.seed, int(self.step))
        return torch.Generator(device).manual_seed(state)

    @torch.no_grad()
    def _compare(self, passes: Iterator[Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
        """Share of passes that disagree, ``(B,)``, and the mean softmax of the passes, ``(B, C)``."""
        predicted = logits.argmax(dim=1)
        wrong, total = torch.zeros(len(logits), device=logits.device), torch.zeros_like(logits, dtype=torch.float32)
        for dropped in passes:
            wrong += dropped.argmax(dim=1) != predicted
            total += dropped.float().softmax(dim=1)
        return wrong / self.passes, total / self.passes

    def _features(self, model: nn.Module, x: Tensor) -> tuple[nn.Linear, Tensor]:
        """The last linear layer and what enters it, ``(B, D)``."""
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise InputError(f"{type(model).__name__} has no linear layer: name the modules of AETTA's dropout, layers")
        entered: list[Tensor] = []
        handle = linear[-1].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
        try:
            predict_untouched(model, x)
        finally:
            handle.remove()
        if not entered or entered[-1].dim() != 2 or len(entered[-1]) != len(x):
            raise InputError(
                f"the last linear layer of {type(model).__name__} does not get one row of features per image: name "
                "the modules of AETTA's dropout, layers"
            )
        return linear[-1], entered[-1]

    def _head_passes(self, head: nn.Linear, features: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
        for _ in range(self.passes):
            yield head(self._dropped(features, generator))

    def _whole_passes(self, model: nn.Module, x: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
        places = [_module(model, name) for name in self.layers or ()]
        hooks = [
            place.register_forward_hook(lambda _, inputs, output: self._dropped(output, generator)) for place in places
        ]
        try:
            for _ in range(self.passes):
                yield predict_untouched(model, x)
        finally:
            for hook in hooks:
                hook.remove()

    def _dropped(self, values: Tensor, generator: torch.Generator) -> Tensor:
        rate = float(self.chosen)
        kept = torch.rand(values.shape, generator=generator, device=values.device) >= rate
        return values * kept / (1.0 - rate)


def _module(model: nn.Module, name: str) -> nn.Module:
    found: list[nn.Module] = [module for path, module in model.named_modules() if f".{path}".endswith(f".{name}")]
    if not found:
        raise InputError(f"layers: {type(model).__name__} has no module {name!r}, see its named_modules()")
    return found[-1]
