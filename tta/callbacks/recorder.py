"""Records of an online run, row by row."""

import math
import time
from pathlib import Path
from typing import Any, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from tta.callbacks.append_file import AppendFile
from tta.functional.pixels import finite_samples
from tta.modules import OnlineAdaptation
from tta.modules.processes import of_all_processes, of_this_process
from tta.monitor import peak_memory_mb
from tta.report.render import write_atomically

PREDICTION_COLUMNS = (
    "position",
    "index",
    "domain",
    "label",
    "prediction",
    "confidence",
    "source_prediction",
    "finite",
)


class Recorder(Callback):
    """Write ``metrics.csv``, ``predictions.csv`` and ``timing.csv`` into the run folder, batch by batch.

    Rows are on disk when the batch is done, so a crash loses none; when a run resumes, rows written after its
    checkpoint are dropped and come again, equal. Everything that depends on the clock is in ``timing.csv``.
    With several processes, ``metrics.csv`` is that of the first process' share of the stream, and the predictions of
    all are joined at the end, process after process.
    """

    def __init__(self) -> None:
        self._files: dict[str, AppendFile] = {}
        self._offsets: dict[str, int] = {}
        self._position = 0
        self.batches = 0
        self._started = 0.0
        self.seconds = 0.0
        self.peak_memory_mb = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Cut files back to where the checkpoint saw them."""
        for name, offset in self._offsets.items():
            columns = PREDICTION_COLUMNS if name.startswith("predictions") else ()
            self._file(trainer, name, columns).cut_back(offset)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the rows of a batch."""
        seconds = time.perf_counter() - self._started
        domains = cast(OnlineAdaptation, pl_module).monitor.domains
        self._record_predictions(
            trainer, domains, batch, outputs["logits"], outputs["source_predictions"], outputs["finite"]
        )
        if not trainer.is_global_zero:
            return
        self.batches += 1
        figures = outputs["figures"]
        present = batch["domain"].unique().tolist()
        domain = domains[present[0]] if len(present) == 1 else "mixed"
        row = {"step": batch_idx, "samples": figures["samples"], "domain": domain}
        row |= {name: _plain(value) for name, value in figures.items() if name != "samples"}
        self._file(trainer, "metrics", tuple(row)).append([list(row.values())])
        self.seconds += seconds
        self.peak_memory_mb = max(self.peak_memory_mb, peak_memory_mb(pl_module.device))
        speed = len(batch["image"]) / seconds
        timing = (batch_idx, f"{seconds:.6f}", f"{speed:.1f}", f"{self.peak_memory_mb:.1f}")
        columns = ("step", "seconds", "samples_per_second", "peak_memory_mb")
        self._file(trainer, "timing", columns).append([timing])
        for logger in trainer.loggers if batch_idx % trainer.log_every_n_steps == 0 else ():  # type: ignore[attr-defined]
            known = {name: value for name, value in figures.items() if not math.isnan(value)}
            logger.log_metrics({**known, "samples_per_second": speed}, step=batch_idx)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the predictions of a frozen model."""
        logits = outputs["logits"]
        no_source = torch.full((len(logits),), -1)
        finite = finite_samples(batch["image"])
        domains = cast(OnlineAdaptation, pl_module).monitor.domains
        self._record_predictions(trainer, domains, batch, logits, no_source, finite)

    def _record_predictions(
        self,
        trainer: Trainer,
        domains: list[str],
        batch: Any,
        logits: Tensor,
        source_predictions: Tensor,
        finite: Tensor,
    ) -> None:
        confidence, prediction = logits.float().softmax(dim=1).max(dim=1)
        size = len(prediction)
        labels = batch.get("label", torch.full((size,), -1))
        columns = zip(
            range(self._position, self._position + size),
            batch["index"].tolist(),
            [domains[domain] for domain in batch["domain"].tolist()],
            labels.tolist(),
            prediction.tolist(),
            [f"{value:.6f}" for value in confidence.tolist()],
            ["" if value < 0 else value for value in source_predictions.tolist()],
            finite.long().tolist(),
            strict=True,
        )
        self._file(trainer, predictions_name(trainer.global_rank, trainer.world_size), PREDICTION_COLUMNS).append(
            columns
        )
        self._position += size

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the predictions of all processes."""
        if trainer.world_size > 1:
            trainer.strategy.barrier()
            if trainer.is_global_zero:
                _join(Path(trainer.default_root_dir), trainer.world_size)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep where the files of every process stand, rows being on disk."""
        for file in self._files.values():
            file.sync()
        own = {
            "offsets": {name: file.offset for name, file in self._files.items()},
            "position": self._position,
            "seconds": self.seconds,
            "peak_memory_mb": self.peak_memory_mb,
        }
        checkpoint["recorder"] = of_all_processes(trainer, own)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take over where the files stood, if the run goes on."""
        if trainer.state.fn != TrainerFn.FITTING or "recorder" not in checkpoint:
            return
        own = of_this_process(trainer, checkpoint["recorder"])
        self._offsets = dict(own["offsets"])
        self._position = own["position"]
        self.seconds = own["seconds"]
        self.peak_memory_mb = own["peak_memory_mb"]

    def _file(self, trainer: Trainer, name: str, header: tuple[str, ...]) -> AppendFile:
        if name not in self._files:
            self._files[name] = AppendFile(Path(trainer.default_root_dir) / f"{name}.csv", header)
        return self._files[name]


def predictions_name(rank: int, world_size: int) -> str:
    """Stem of the file that holds a process' predictions."""
    return "predictions" if world_size == 1 else f"predictions-{rank}"


def _join(folder: Path, world_size: int) -> None:
    names = (predictions_name(rank, world_size) for rank in range(world_size))
    parts = [(folder / f"{name}.csv").read_text().splitlines() for name in names]
    rows = [line.split(",", 1)[1] for part in parts for line in part[1:]]
    lines = [parts[0][0], *(f"{position},{row}" for position, row in enumerate(rows))]
    write_atomically(folder / "predictions.csv", "\n".join(lines) + "\n")


def _plain(value: float) -> float | str:
    if math.isnan(value):
        return ""
    return int(value) if float(value).is_integer() else value
