"""The label-shift adapter: a head that follows the class prior of the target, around any method or none."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, Facts, ResetScope, Updater, checked_logits
from tta.adapters.corrections import Correction, NetworkCorrection
from tta.adapters.head import linear_head
from tta.adapters.label_shift_source import SourceFigures
from tta.adapters.prior_estimators import PriorEstimator
from tta.adapters.windowed_estimators import CalibratedDegree
from tta.companion import Companion
from tta.errors import InputError
from tta.functional.label_shift import log_slope_degree

MOST_CURVES = 20
"""With more classes than that the estimate is drawn as degree of imbalance and entropy alone."""


class LabelShift(Adapter):
    r"""Change the classifier's head as the class prior of the target asks for, while another method adapts the rest.

    At each batch: the change of the head is made from the estimate of the step before; the inner method predicts and
    learns through the changed head (its loss reaches its own parameters only: the change is a constant); then the
    estimate takes the batch in. Predictions are the inner method's. Without an inner method the source network
    predicts, in eval mode.

    Costs nothing but a few products of the size of the head. A batch of one works if it does for the inner method.
    Where nothing is reliable for the inner method, the estimate still moves. On constant logits a change of the head
    still tells classes apart, as the prior does. Samples that are not finite, or whose logits are not, are
    predicted through the changed head and leave the estimate alone. A reset that the inner method asks for resets the
    estimate too, if it is one of everything.

    Inner methods that normalise by the batch (all of this library on BatchNorm) shift features under label shift, since
    the statistics of a batch follow its classes. A companion for them is trained with
    ``LabelShiftTraining(statistics="batch")``, one for no inner method, or for networks without BatchNorm, with
    ``statistics="source"``.

    Args:
        adapter: The inner method, such as ``Tent()``; ``None`` for the frozen source network.
        correction: What changes the head: ``NetworkCorrection()`` (by default; the paper's method), or
            ``LogitAdjustment()``, the post-hoc baseline with the same estimate.
        estimator: Estimate of the prior. By default ``CalibratedDegree()``; the paper's is ``MovingAverage()``.
            The estimate decides more than the correction; see ``docs/label_shift.md`` for the comparison.
        companion: What ``LabelShiftTraining`` made: a path, or the companion itself.
        source_prior: Class counts or probabilities of the source, for ``LogitAdjustment`` without a companion; those
            of the companion if ``None``.

    Raises:
        InputError: Without companion and source prior; if the correction or the estimator needs a companion; if the
            companion is of another method, feature size or class count; if the logits are not the outputs of one linear
            head, as with ``SADE``, which mixes those of several.

    References:
        Label Shift Adapter for Test-Time Adaptation under Covariate and Label Shifts, ICCV 2023, figure 3,
        https://arxiv.org/abs/2308.08810. No code was published and what was available of the paper leaves open: the
        map to a degree of imbalance, the network's size and training, momentum, start and logits of the estimate. All
        are arguments here and in ``LabelShiftTraining``, with the reasons given there. On purpose another default:
        the estimator.
    """

    facts = Facts(needs_companion=True, trains="what the inner method trains", paper="https://arxiv.org/abs/2308.08810")

    def __init__(
        self,
        adapter: Adapter | None = None,
        correction: Correction | None = None,
        estimator: PriorEstimator | None = None,
        companion: str | Path | Companion | None = None,
        source_prior: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.source = SourceFigures(companion, source_prior)
        self.correction = NetworkCorrection() if correction is None else correction
        self.correction.check(self.source)
        self.estimator = CalibratedDegree() if estimator is None else estimator
        self.estimator.prepare(self.source)
        self.adapter = adapter
        if adapter is not None:
            self.facts = replace(adapter.facts, needs_companion=True)

    # ---- the inner method, or none -------------------------------------------------------------------------------

    def prepare(self, model: nn.Module) -> None:
        """As the inner method; frozen and in eval mode without one.

        Raises:
            InputError: If the classifier's head does not fit what is known of the source.
        """
        self.source.check_head(self._head(model))
        if self.adapter is not None:
            self.adapter.prepare(model)
        else:
            model.eval()
            model.requires_grad_(False)

    def trainable(self, model: nn.Module) -> list[nn.Parameter]:
        """What the inner method trains."""
        return [] if self.adapter is None else self.adapter.trainable(model)

    def observe_source(self, model: nn.Module, batches: Iterable[Tensor]) -> None:
        """Show source images to the inner method, through the unchanged head: their prior is the source's."""
        if self.adapter is not None:
            self.adapter.observe_source(model, batches)

    def observe_target(self, model: nn.Module, batches: Iterable[Tensor], updater: Updater) -> None:
        """Show the stream to a transductive inner method, through the head as it starts."""
        if self.adapter is not None:
            with self._changed_head(model):
                self.adapter.observe_target(model, batches, updater)

    def wants_reset(self) -> ResetScope | None:
        """What the inner method asks for."""
        return None if self.adapter is None else self.adapter.wants_reset()

    def reset(self) -> None:
        """Forget the estimate, and what the inner method learnt."""
        self.estimator.reset(self.source)
        if self.adapter is not None:
            self.adapter.reset()

    # ---- the changed head ----------------------------------------------------------------------------------------

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """A step of the inner method through the changed head, then one of the estimate."""
        with self._changed_head(model) as passes:
            if self.adapter is not None:
                output = self.adapter.adapt(model, x, updater)
            else:
                with torch.no_grad():
                    output = AdapterOutput(checked_logits(model(x)))
        predicting = next((features for features, logits in passes if _equal(logits, output.logits)), None)
        if predicting is None:
            raise InputError(
                f"the classifier or the inner method returned {output.logits.shape[1]} logits that are not the outputs "
                "of its last linear layer: LabelShift needs a linear head whose outputs are the logits; where another "
                "layer is that, train the companion with its name as head"
            )
        logits = self._estimator_logits(model, predicting, output.logits)
        finite = torch.isfinite(logits).all(dim=1)
        self.estimator.update(logits[finite], self.source, self._share(updater))
        return output

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """Predict through the changed head, in the inner method's way, without learning."""
        with self._changed_head(model):
            return super().predict(model, x) if self.adapter is None else self.adapter.predict(model, x)

    def sit_out(self, model: nn.Module, x: Tensor, updater: Updater) -> None:
        """Let the inner method sit out, and give nothing to the estimate."""
        if self.adapter is not None:
            with self._changed_head(model):
                self.adapter.sit_out(model, x, updater)
        self.estimator.update(self.source.prior.new_zeros(0, len(self.source.prior)), self.source, self._share(updater))

    def scalars(self) -> dict[str, Tensor]:
        """Degree of imbalance and entropy (nats) of the estimate, its probabilities if few, and the inner figures."""
        prior = self.estimator.prior
        figures = {
            "degree_of_imbalance": log_slope_degree(prior, self.source.prior),
            "prior_entropy": torch.special.entr(prior).sum(),
        }
        if len(prior) <= MOST_CURVES:
            figures |= {f"prior_{number}": value.clone() for number, value in enumerate(prior)}
        return figures if self.adapter is None else {**figures, **self.adapter.scalars()}

    def _head(self, model: nn.Module) -> nn.Linear:
        network = self.source.network
        return linear_head(model, None if network is None else network.head)

    @contextmanager
    def _changed_head(self, model: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Change the head within the context; collect the features ``(B, D)`` that entered it and its new logits."""
        head = self._head(model)
        change = self.correction.change(self.estimator.prior, head, self.source)
        features: list[Tensor] = []
        passes: list[tuple[Tensor, Tensor]] = []

        def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
            features.append(inputs[0].detach())
            return (change.features(inputs[0]),)

        def leave(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            logits = output + change.added(inputs[0])
            passes.append((features.pop(), logits.detach()))
            return logits

        handles = (head.register_forward_pre_hook(enter), head.register_forward_hook(leave))
        try:
            yield passes
        finally:
            for handle in handles:
                handle.remove()

    def _estimator_logits(self, model: nn.Module, features: Tensor, adapted: Tensor) -> Tensor:
        wanted = self.estimator.logits
        return adapted if wanted == "adapted" else self.source.logits(wanted, self._head(model), features)

    def _share(self, updater: Updater) -> Any:  # noqa: ANN401
        # A method that takes no step runs in one process, without an updater to speak of.
        return updater.mean if self.facts.needs_gradients else _itself


def _equal(logits: Tensor, returned: Tensor) -> bool:
    logits = logits.float()
    return logits.shape == returned.shape and torch.allclose(logits, returned, rtol=0.0, atol=0.0, equal_nan=True)


def _itself(value: Tensor) -> Tensor:
    return value
