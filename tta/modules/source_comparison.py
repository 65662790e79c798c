"""What the frozen source model says of the samples that the adapted one predicts."""

import json
from pathlib import Path

import torch
from torch import Tensor

from tta.adapters import Source
from tta.errors import InputError
from tta.modules.frozen_evaluation import Batch
from tta.modules.recorded_predictions import WANTED, RecordedPredictions
from tta.monitor import CostMeter, FrozenSource, SourceBudget, StreamMonitor


class SourceComparison:
    """Runs the frozen source model on a share of the samples, or takes over what a run of it has recorded.

    Args:
        share: Share of the samples to run it on, in ``(0, 1]``; ``None`` for a thirtieth of the adapter's passes.
        recorded: ``predictions.csv`` of a run of adapter ``Source`` over the very same stream.

    Raises:
        InputError: If both are given, or the share is out of range.
    """

    def __init__(self, share: float | None, recorded: str | None) -> None:
        if share is not None and recorded is not None:
            raise InputError(
                f"source_share={share} and source_predictions={recorded!r}: the file has the predictions for all "
                "samples, so leave source_share out"
            )
        self._budget = SourceBudget(share)
        self._path = recorded
        self._recorded: RecordedPredictions | None = None

    def open(self, processes: int) -> None:
        """Read the recorded predictions, if any are to be used.

        Args:
            processes: Number of processes that share the stream.

        Raises:
            InputError: If there are several, which see samples at other positions, or the file is no such record, or
                a ``summary.json`` beside it is of another adapter.
        """
        if self._path is None:
            return
        if processes > 1:
            raise InputError(
                f"source_predictions={self._path!r} has the order of one process and the stream is shared by "
                f"{processes}: use source_share, or --trainer.devices 1"
            )
        path = Path(self._path)
        if (adapter := _adapter_of(path)) not in (None, Source.__name__):
            raise InputError(f"{path} is of a run of adapter {adapter}: {WANTED}")
        self._recorded = RecordedPredictions(path)

    def predictions(
        self, batch: Batch, known: Tensor | None, frozen: FrozenSource, monitor: StreamMonitor, cost: CostMeter
    ) -> Tensor:
        """Classes that the source model predicts for a batch.

        Args:
            batch: ``image`` (B, C, H, W) float; ``domain`` and ``index`` (B,) int64.
            known: Logits ``(B, K)`` of the source model, where somebody has run it already.
            frozen: The source model.
            monitor: What was counted before the batch.
            cost: Passes of the adapter, the batch included.

        Returns:
            Shape ``(B,)``, int64, on the CPU; ``-1`` where it was not run.

        Raises:
            InputError: If recorded predictions are of another stream.
        """
        images, samples = batch["image"], monitor.count("samples")
        if self._recorded is not None:
            return self._recorded.of(batch, samples, monitor.domains)
        predictions = torch.full((len(images),), -1)
        passes = cost.forwards + cost.backwards
        rows = self._budget.rows(len(images), samples + len(images), passes, monitor.count("compared"))
        if len(rows):
            there = rows.to(images.device)
            logits = frozen(images[there]) if known is None else known[there]
            predictions[rows] = logits.argmax(dim=1).cpu()
        return predictions


def _adapter_of(path: Path) -> str | None:
    """The adapter of the run that a file is of, where the run's summary lies beside it."""
    try:
        summary = json.loads((path.parent / "summary.json").read_text(encoding="utf-8"))
        adapter: str = summary["adapter"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return adapter
