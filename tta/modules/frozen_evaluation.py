"""Evaluation that never adapts."""

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput
from tta.errors import InputError
from tta.modules.checks import checked_forward
from tta.monitor import CostMeter, FrozenSource, StreamMonitor

Batch = Mapping[str, Tensor]


class FrozenEvaluation(LightningModule):
    """The part of the online host behind ``validate``, ``test`` and ``predict``: predict in the adapter's modes.

    Validation measures forgetting, on clean source images against the frozen source model.

    Args:
        backbone: The classifier.
        adapter: The method, whose modes are used.
        num_classes: Number of classes.
        window: Samples that windowed figures look back over.
    """

    frozen: FrozenSource
    cost: CostMeter
    _evaluation: StreamMonitor

    def __init__(self, backbone: nn.Module, adapter: Adapter, num_classes: int, window: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.adapter = adapter
        self.num_classes = num_classes
        self.window = window
        self.forgetting: float | None = None
        self._clean = torch.zeros(3, dtype=torch.int64)

    @property
    def _datamodule(self) -> Any:  # noqa: ANN401  Lightning types it as Any too
        return getattr(self.trainer, "datamodule", None)

    def _new_monitor(self, label_delay: int = 0) -> StreamMonitor:
        domains = getattr(self._datamodule, "domains", ["stream"])
        return StreamMonitor(self.num_classes, domains, self.window, label_delay)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count right predictions on clean source images, adapted and frozen: what was forgotten."""
        labels = batch["label"]
        try:
            with self.cost.paused():
                adapted = self.adapter.predict(self.backbone, batch["image"]).argmax(dim=1)
        except InputError:
            return  # too small a last batch for batch statistics
        frozen = self.frozen(batch["image"]).argmax(dim=1)
        counts = [(adapted == labels).sum(), (frozen == labels).sum(), torch.tensor(len(labels))]
        self._clean += torch.stack([count.cpu() for count in counts])

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self._clean.zero_()

    def on_validation_epoch_end(self) -> None:
        """Forgetting: accuracy on clean source images that adaptation cost, in ``[-1, 1]``."""
        adapted, frozen, total = self._clean.tolist()
        if total:
            self.forgetting = (frozen - adapted) / total

    def on_test_start(self) -> None:
        """Fresh figures for this evaluation."""
        self.__dict__["_evaluation"] = self._new_monitor()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluate without adapting."""
        output = AdapterOutput(checked_forward(self._predict, batch["image"], self.num_classes))
        self._evaluation.update(output, batch.get("label"), batch.get("domain"))

    def on_test_epoch_end(self) -> None:
        """Log accuracy, calibration error, likelihood and accuracy by domain."""
        summary = self._evaluation.summary()
        figures = {name: summary[name] for name in ("accuracy", "ece", "nll")}
        figures |= {f"accuracy/{name}": row["accuracy"] for name, row in summary["per_domain"].items()}
        self.log_dict({f"test/{name}": value for name, value in figures.items() if value is not None})

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Logits of a batch, without adapting."""
        return {"logits": checked_forward(self._predict, batch["image"], self.num_classes)}

    def _predict(self, images: Tensor) -> Tensor:
        return self.adapter.predict(self.backbone, images)
