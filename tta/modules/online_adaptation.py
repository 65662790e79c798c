"""The Lightning host of the online loop."""

import copy
import math
from dataclasses import replace
from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput
from tta.errors import InputError
from tta.estimates.base import AccuracyEstimate
from tta.modules.checks import checked_forward
from tta.modules.estimation import StreamEstimates
from tta.modules.frozen_evaluation import Batch
from tta.modules.observation import show_to_estimates, show_to_method
from tta.modules.processes import keep_own_buffers
from tta.modules.resumable_adaptation import ResumableAdaptation
from tta.modules.source_comparison import SourceComparison
from tta.modules.suitability import check_adaptation, check_frozen_evaluation
from tta.modules.updater import LightningUpdater
from tta.modules.weights import load_weights
from tta.monitor import CostMeter, FrozenSource, backward_in_forwards, none_if_nan
from tta.resets import Adaptation, AdaptedClassifier, ResetProtocol, reset_protocol
from tta.snapshot import SourceSnapshot
from tta.source_batches import source_images


class OnlineAdaptation(ResumableAdaptation):
    """Adapt a source classifier online over a stream of batches, and measure what that does.

    Runs under ``StreamTrainer.adapt`` (``tta adapt``). ``test`` and ``predict`` evaluate without adapting, in the
    adapter's modes: with adapter ``Source``, the source model; from a checkpoint, the model as it was adapted.
    Labels go to the metrics only.

    Args:
        backbone: Classifier that maps images ``(B, C, H, W)`` in ``[0, 1]`` to logits ``(B, K)``.
        adapter: The adaptation method.
        optimizer: Optimiser of the adapted parameters; SGD with lr 2.5e-4 and momentum 0.9 by default (as published
            for ImageNet at batch 64). Not used by methods that take no step.
        weights: File with source weights: ``.safetensors``, ``.pt`` or a Lightning checkpoint. Without it the
            backbone is taken as it is.
        num_classes: Number of classes; taken from the data by the command line.
        protocol: When to go back to the source: ``continual`` never, ``per_domain`` at known domain boundaries,
            ``episodic`` before every batch; or a class of ``tta.resets``: ``Periodic`` after so many batches,
            ``EntropyAverage`` when entropy gets too low, ``AccuracyEstimateReset`` when an estimate of the accuracy is
            low or falls; ``StochasticRestore`` and ``FisherRestore`` give back a part of the weights after each batch.
        window: Samples that windowed figures look back over.
        source_share: Share of the samples on which the frozen source model is run for comparison, in ``(0, 1]``. By
            default a thirtieth of the passes that the adapter spends.
        source_predictions: ``predictions.csv`` of a run of adapter ``Source`` over the very same stream. All samples
            are compared with it, and the frozen source model is not run on the stream. Takes the place of
            ``source_share``, and one process.
        estimates: Label-free estimates of accuracy to log beside the true one. None by default: those that tell of a
            collapse take further forward passes, which are not counted as the adapter's.

    Attributes:
        shown: Figures of the last batch that stand beside the progress bar.

    Raises:
        InputError: If weights do not fit or cannot be read, if the adapter finds nothing to adapt, if precision or
            number of processes do not suit the method, or if recorded predictions are not of this stream.
    """

    def __init__(
        self,
        backbone: nn.Module,
        adapter: Adapter,
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=2.5e-4, momentum=0.9),
        weights: str | None = None,
        num_classes: int = 1000,
        protocol: Literal["continual", "per_domain", "episodic"] | ResetProtocol = "continual",
        window: int = 500,
        source_share: float | None = None,
        source_predictions: str | None = None,
        estimates: list[AccuracyEstimate] | None = None,
    ) -> None:
        super().__init__(backbone, adapter, num_classes, window)
        self.automatic_optimization = False
        self.optimizer_factory = optimizer
        self.weights = weights
        self.protocol = reset_protocol(protocol)
        self.comparison = SourceComparison(source_share, source_predictions)
        # Like the monitor not a submodule: each process estimates on its share of the stream.
        self.__dict__["estimates"] = StreamEstimates(estimates or (), window)
        self.updater = LightningUpdater(self)
        self.shown: dict[str, float] = {}
        self._prepared = False
        self._fresh_optimizer: dict[str, Any] = {}

    # ---- set-up -------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Load source weights, remember them, prepare the model: before processes wrap it and before resuming."""
        if stage == "fit":
            check_adaptation(self.adapter, self.protocol, self.trainer, self._datamodule)
            self.comparison.open(self.trainer.world_size)
        else:
            check_frozen_evaluation(self.trainer)
        if not self._prepared:
            self._prepare_source()
        if self.trainer.world_size > 1:
            keep_own_buffers(self)
        # Not a submodule: it belongs to one stream, and stays on the CPU where processes could not share its buffers.
        self.__dict__["monitor"] = self._new_monitor(getattr(self._datamodule, "label_delay", 0))

    def _prepare_source(self) -> None:
        if self.weights is not None:
            load_weights(self.backbone, self.weights)
        self.adapter.prepare(self.backbone)
        self.adapter.reset()
        self.source = SourceSnapshot(self.backbone)
        self.frozen = FrozenSource(self.backbone, self.source)
        self.cost = CostMeter(self.backbone)
        self.protocol.prepare(self._adaptation())
        self.protocol.reset()
        self._prepared = True

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """The optimiser over what the adapter trains, if it trains anything."""
        if not self.adapter.facts.needs_gradients:
            return None
        optimizer = self.optimizer_factory(self.adapter.trainable(self.backbone))
        self._fresh_optimizer = copy.deepcopy(optimizer.state_dict())
        return optimizer

    def on_fit_start(self) -> None:
        """Bring the frozen source to the device, and show images to methods and estimates that need them first."""
        self.frozen.to(self.device)
        self.estimates.to(self.device)
        if self._resumed is None:
            self._show_images()

    def _show_images(self) -> None:
        predictor = AdaptedClassifier(self.adapter, self.backbone)
        with self.cost.paused():
            show_to_method(self.adapter, self.backbone, self._datamodule)
            for estimates in (self.estimates, StreamEstimates(self.protocol.estimates, self.window)):
                show_to_estimates(estimates, predictor, self._datamodule)
        if self.adapter.facts.needs_target_data:
            stream = self._datamodule.train_dataloader()
            self.adapter.observe_target(self.backbone, source_images(stream, self.backbone), self.updater)

    def train(self, mode: bool = True) -> "OnlineAdaptation":
        """Keep the modes that the adapter set, whatever is asked: they are part of the method."""
        super().train(mode)
        if self._prepared:  # before that methods would take weights for the source's that are not loaded yet
            self.adapter.prepare(self.backbone)
        return self

    # ---- the online loop ----------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Predict a batch, learn from it, measure.

        Args:
            batch: ``image`` (B, C, H, W) float; ``label`` (B,) int64, ``-1`` where unknown; ``domain`` and ``index``
                (B,) int64.
            batch_idx: Position of the batch in the stream.

        Returns:
            On the CPU: ``logits`` (B, K), ``source_predictions`` (B,) with ``-1`` where the source model was not run,
            ``finite`` (B,) bool, and ``figures``, the step's scalars.
        """
        if missing := {"image", "domain", "index"} - set(batch):
            raise InputError(f"a batch of the stream lacks {', '.join(sorted(missing))}: see StreamDataModule")
        if self.monitor.count("samples") == 0:
            checked_forward(self.frozen, batch["image"][:1], self.num_classes)
            self._count_arithmetic(batch["image"][:2])
        output = self.protocol(self._adaptation(), batch["image"], batch["domain"])
        source_predictions = self.comparison.predictions(
            batch, output.source_logits, self.frozen, self.monitor, self.cost
        )
        there, output = output.logits, _on_cpu(output)
        figures = self.monitor.update(output, batch.get("label"), batch["domain"], source_predictions)
        with self.cost.paused():
            predictor = AdaptedClassifier(self.adapter, self.backbone)
            figures |= self.estimates.update(predictor, batch["image"], there, figures["window_accuracy"])
        figures |= self._host_figures()
        self.shown = {name: figures[name] for name in ("accuracy", "collapsed")}
        return {
            "logits": output.logits,
            "source_predictions": source_predictions,
            "finite": output.finite,
            "figures": figures,
        }

    def _count_arithmetic(self, images: Tensor) -> None:
        trained = self.adapter.trainable(self.backbone) if self.adapter.facts.needs_gradients else []
        self.backward_in_forwards = backward_in_forwards(self.backbone, trained, images)

    def _adaptation(self) -> Adaptation:
        return Adaptation(self.backbone, self.adapter, self.updater, self.source, self._fresh_optimizer)

    def _host_figures(self) -> dict[str, float]:
        norm = self.updater.gradient_norm
        return {
            "parameter_drift": float(self.source.drift()),
            "gradient_norm": math.nan if norm is None else float(norm),
            "skipped_steps": self.updater.skipped_steps,
            "forwards": self.cost.forwards,
            "backwards": self.cost.backwards,
        }

    def on_train_epoch_end(self) -> None:
        """Score samples whose labels are late, and add up what the processes counted."""
        self.monitor.settle()
        if self.trainer.world_size > 1:
            self.monitor.add_up(self._summed, self.trainer.world_size)
            self.estimates.track.totals.copy_(self._summed(self.estimates.track.totals))
            passes = self._summed(torch.tensor([self.cost.forwards, self.cost.backwards]))
            self.cost.forwards, self.cost.backwards = passes.tolist()

    def _summed(self, value: Tensor) -> Tensor:
        return torch.as_tensor(self.trainer.strategy.reduce(value.to(self.device), reduce_op="sum")).to(value.device)

    def summary(self) -> dict[str, Any]:
        """All figures of the run, plain types: the monitor's, the host's and the passes per sample."""
        samples = max(self.monitor.count("samples"), 1)
        equivalents = self.cost.forwards + self.backward_in_forwards * self.cost.backwards
        return {
            "adapter": type(self.adapter).__name__,
            "model": type(self.backbone).__name__,
            "protocol": self.protocol.label,
            "num_classes": self.num_classes,
            **self.monitor.summary(),
            "skipped_steps": self.updater.skipped_steps,
            "parameter_drift": none_if_nan(float(self.source.drift())),
            "forgetting": self.forgetting,
            "notes": self.adapter.notes(),
            "estimates": self.estimates.summary(),
            "forwards_per_sample": self.cost.forwards / samples,
            "backwards_per_sample": self.cost.backwards / samples,
            "backward_in_forwards": self.backward_in_forwards,
            "forward_equivalents_per_sample": equivalents / samples,
        }


def _on_cpu(output: AdapterOutput) -> AdapterOutput:
    """The output with what is read more than once on the CPU: each read of a tensor elsewhere waits for the device."""
    finite = None if output.finite is None else output.finite.cpu()
    return replace(output, logits=output.logits.cpu(), finite=finite)
