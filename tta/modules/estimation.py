"""Label-free estimates of accuracy beside an adapting model."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tta.errors import InputError
from tta.estimates.base import AccuracyEstimate
from tta.monitor.estimates import EstimateTrack, names_of
from tta.source_batches import labelled_source_images


class StreamEstimates:
    """The estimates of a run and how they compare with the truth.

    Args:
        estimates: They keep their state; none may be in two runs.
        window: Samples that windowed figures look back over.
    """

    def __init__(self, estimates: Sequence[AccuracyEstimate], window: int) -> None:
        self.estimates = list(estimates)
        self._state = nn.ModuleList(self.estimates)
        self.track = EstimateTrack(names_of(estimates), window)

    def to(self, device: torch.device) -> None:
        """Move the estimates' state."""
        self._state.to(device)

    @property
    def needs_source_labels(self) -> list[str]:
        """Classes of the estimates that must see labelled source predictions."""
        return [type(estimate).__name__ for estimate in self.estimates if estimate.needs_source_labels]

    def observe_source(self, model: nn.Module, load: Callable[[], Iterable[Any]]) -> None:
        """Show labelled source images to the estimates that need them.

        A last batch of one, which may be too small for batch statistics, is left out.

        Args:
            model: The classifier with source weights as it predicts.
            load: Gives mappings with ``image`` and ``label``; called once per estimate.

        Raises:
            InputError: If no labelled image is among them.
        """
        for estimate in self.estimates:
            if estimate.needs_source_labels:
                pairs = enumerate(labelled_source_images(load(), model))
                estimate.observe_source(model, (pair for number, pair in pairs if len(pair[1]) > (number > 0)))

    def update(self, model: nn.Module, x: Tensor, logits: Tensor, window_accuracy: float) -> dict[str, float]:
        """Estimate the accuracy on a batch.

        Args:
            model: The classifier as it predicts.
            x: Images, shape ``(B, ...)``; non-finite pixels are taken as zero.
            logits: What was predicted for them, shape ``(B, C)``, float32.
            window_accuracy: Accuracy over the window that ends with the batch, NaN where unknown.

        Returns:
            ``estimate/NAME`` and ``window_estimate/NAME`` for each.
        """
        if not self.estimates:
            return {}
        images = x.nan_to_num(0.0, 0.0, 0.0)
        values = [float(estimate.update(model, images, logits)) for estimate in self.estimates]
        return self.track.update(values, len(x), window_accuracy)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain types only."""
        return {"estimates": self._state.state_dict(), "track": self.track.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back.

        Raises:
            InputError: If the run had other estimates.
        """
        try:
            self.track.load_state_dict(state["track"])
            self._state.load_state_dict(state["estimates"])
        except RuntimeError as error:
            raise InputError(
                "the checkpoint is of a run with other estimates of accuracy: --ckpt_path resumes the very same run"
            ) from error

    def summary(self) -> dict[str, Any]:
        """Figures by name, see :class:`~tta.monitor.EstimateTrack`, and the passes per sample that each declares."""
        compared = self.track.summary().items()
        passes = (estimate.forwards for estimate in self.estimates)
        return {name: {**row, "forwards_per_sample": n} for (name, row), n in zip(compared, passes, strict=True)}
