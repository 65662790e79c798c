"""The Lightning host of the online loop."""

import copy
import math
from dataclasses import replace
from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput
from tta.errors import InputError
from tta.estimates.base import AccuracyEstimate
from tta.modules.checks import checked_forward
from tta.modules.estimation import StreamEstimates
from tta.modules.frozen_evaluation import Batch, FrozenEvaluation
from tta.modules.observation import show_to_estimates, show_to_method
from tta.modules.processes import of_all_processes, of_this_process
from tta.modules.suitability import check_adaptation, check_frozen_evaluation
from tta.modules.updater import LightningUpdater
from tta.modules.weights import load_weights
from tta.monitor import CostMeter, FrozenSource, SourceBudget, StreamMonitor, none_if_nan
from tta.resets import Adaptation, AdaptedClassifier, ResetProtocol, reset_protocol
from tta.snapshot import SourceSnapshot
from tta.source_batches import source_images


class OnlineAdaptation(FrozenEvaluation):
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
        estimates: Label-free estimates of accuracy to log beside the true one. None by default: those that tell of a
            collapse take further forward passes, which are not counted as the adapter's.

    Attributes:
        shown: Figures of the last batch that stand beside the progress bar.

    Raises:
        InputError: If weights do not fit or cannot be read, if the adapter finds nothing to adapt, or if precision
            or number of processes do not suit the method.
    """

    monitor: StreamMonitor
    estimates: StreamEstimates

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
        estimates: list[AccuracyEstimate] | None = None,
    ) -> None:
        super().__init__(backbone, adapter, num_classes, window)
        self.automatic_optimization = False
        self.optimizer_factory = optimizer
        self.weights = weights
        self.protocol = reset_protocol(protocol)
        self.budget = SourceBudget(source_share)
        # Like the monitor not a submodule: each process estimates on its share of the stream.
        self.__dict__["estimates"] = StreamEstimates(estimates or (), window)
        self.updater = LightningUpdater(self)
        self.shown: dict[str, float] = {}
        self._prepared = False
        self._resumed: dict[str, Any] | None = None
        self._fresh_optimizer: dict[str, Any] = {}

    # ---- set-up -------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Load source weights, remember them, prepare the model: before processes wrap it and before resuming."""
        if stage == "fit":
            check_adaptation(self.adapter, self.protocol, self.trainer, self._datamodule)
        else:
            check_frozen_evaluation(self.trainer)
        if not self._prepared:
            self._prepare_source()
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
        output = self.protocol(self._adaptation(), batch["image"], batch["domain"])
        source_predictions = self._source_predictions(batch["image"], output.source_logits)
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

    def _source_predictions(self, images: Tensor, known: Tensor | None) -> Tensor:
        predictions = torch.full((len(images),), -1)
        passes = self.cost.forwards + self.cost.backwards
        samples = self.monitor.count("samples") + len(images)
        rows = self.budget.rows(len(images), samples, passes, self.monitor.count("compared"))
        if len(rows):
            rows_there = rows.to(self.device)
            logits = self.frozen(images[rows_there]) if known is None else known[rows_there]
            predictions[rows] = logits.argmax(dim=1).cpu()
        return predictions

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

    # ---- checkpoints --------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is not in the state dict: source values, counters, the state of the random generator."""
        norm = self.updater.gradient_norm
        own = {
            "adapter": type(self.adapter).__name__,
            "source": self.source.values,
            "monitor": self.monitor.state_dict(),
            "estimates": self.estimates.state_dict(),
            "protocol": self.protocol.label,
            "forgetting": self.forgetting,
            "skipped_steps": self.updater.skipped_steps,
            "gradient_norm": math.nan if norm is None else float(norm),
            "forwards": self.cost.forwards,
            "backwards": self.cost.backwards,
            "rng": torch.get_rng_state(),
        }
        checkpoint["online_adaptation"] = of_all_processes(self.trainer, own)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back.

        Raises:
            InputError: If the checkpoint comes from another kind of run, another adapter or another protocol.
        """
        states = checkpoint.get("online_adaptation")
        name = type(self.adapter).__name__
        if states is None or states[0]["adapter"] != name:
            made_by = "tta fit" if states is None else f"adapter {states[0]['adapter']}"
            raise InputError(
                f"the checkpoint was made by {made_by}, this run uses adapter {name}: --ckpt_path resumes the very "
                "same run; source weights go to --model.weights"
            )
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._resume(of_this_process(self.trainer, states))
        else:  # a frozen evaluation follows no protocol, so whatever protocol the run had will do
            weights = {k: v for k, v in checkpoint["state_dict"].items() if not k.startswith("protocol.")}
            checkpoint["state_dict"] = weights | self.protocol.state_dict(prefix="protocol.")

    def _resume(self, state: dict[str, Any]) -> None:
        self._resumed = state
        if state.get("protocol") != self.protocol.label:
            raise InputError(
                f"the checkpoint was made under protocol {state.get('protocol')}, this run's is {self.protocol.label}: "
                "--ckpt_path resumes the very same run"
            )
        try:
            self.monitor.load_state_dict(state["monitor"])
        except RuntimeError as error:
            raise InputError(
                "the checkpoint is of a stream with other domains, classes or window: --ckpt_path resumes the very "
                "same run"
            ) from error
        self.estimates.load_state_dict(state["estimates"])
        self.forgetting = state["forgetting"]
        self.source.values = state["source"]
        self.updater.skipped_steps = state["skipped_steps"]
        if not math.isnan(state["gradient_norm"]):
            self.updater.gradient_norm = torch.tensor(state["gradient_norm"])
        self.cost.forwards, self.cost.backwards = state["forwards"], state["backwards"]

    def on_train_start(self) -> None:
        """Go on with the random generator where it stood."""
        if self._resumed is not None:
            torch.set_rng_state(self._resumed["rng"].cpu())

    def summary(self) -> dict[str, Any]:
        """All figures of the run, plain types: the monitor's, the host's and the passes per sample."""
        samples = max(self.monitor.count("samples"), 1)
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
        }


def _on_cpu(output: AdapterOutput) -> AdapterOutput:
    """The output with what is read more than once on the CPU: each read of a tensor elsewhere waits for the device."""
    finite = None if output.finite is None else output.finite.cpu()
    return replace(output, logits=output.logits.cpu(), finite=finite)
