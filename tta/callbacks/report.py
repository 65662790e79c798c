"""What a run leaves for people to read."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info

import tta
from tta.callbacks.batch_checkpoint import last_checkpoint
from tta.callbacks.recorder import Recorder
from tta.errors import InputError
from tta.modules import OnlineAdaptation
from tta.report import figures, read_run, write_report
from tta.report.render import write_atomically

PASSES = ("forwards_per_sample", "backwards_per_sample", "backward_in_forwards", "forward_equivalents_per_sample")


class Report(Callback):
    """At the end of the stream write ``summary.json`` and ``report.html``, and log both to the loggers."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, log and say where."""
        if not isinstance(pl_module, OnlineAdaptation):
            return
        summary = pl_module.summary()
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        recorder = next((c for c in trainer.callbacks if isinstance(c, Recorder)), None)  # type: ignore[attr-defined]
        if recorder is not None and recorder.batches == 0 and (folder / "summary.json").exists():
            rank_zero_info(f"The run had ended. Report: {write_report(folder)}")
            return
        summary |= _of_the_stream(trainer) | _of_the_cost(recorder, summary, pl_module.device)
        summary["adapter_arguments"] = _arguments(pl_module.adapter)
        write_atomically(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
        page = write_report(folder)
        self._log(trainer, folder, summary)
        rank_zero_info(f"Report: {page}")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the figures of a frozen evaluation in ``test.json``."""
        if trainer.is_global_zero:
            figures_of_test = {name: float(value) for name, value in trainer.callback_metrics.items()}
            write_atomically(Path(trainer.default_root_dir) / "test.json", json.dumps(figures_of_test, indent=2) + "\n")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tell how to go on."""
        if last_checkpoint(trainer.default_root_dir).exists() and not isinstance(exception, InputError):
            rank_zero_info(f"Stopped. The same command with --ckpt_path last goes on in {trainer.default_root_dir}")

    def _log(self, trainer: Trainer, folder: Path, summary: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            if hasattr(logger, "log_table"):
                rows = [[name, value] for name, value in summary.items() if isinstance(value, int | float | str)]
                logger.log_table("summary", columns=["figure", "value"], data=[[n, str(v)] for n, v in rows])
            if hasattr(logger, "log_image"):
                for name, figure in figures(read_run(folder)).items():
                    logger.log_image(f"report/{name}", [_to_image(figure)])


def _of_the_stream(trainer: Trainer) -> dict[str, Any]:
    data = getattr(trainer, "datamodule", None)
    order = getattr(data, "schedule", getattr(data, "order", None))
    known = {name: getattr(data, name, None) for name in ("seed", "class_names", "domains")}
    return {"stream": type(data).__name__, "order": order, **known}


def _of_the_cost(recorder: Recorder | None, summary: dict[str, Any], device: torch.device) -> dict[str, Any]:
    seconds = recorder.seconds if recorder else None
    cost = {
        **{name: summary.pop(name) for name in PASSES},
        "seconds": seconds,
        "samples_per_second": summary["samples"] / seconds if seconds else None,
        "peak_memory_mb": recorder.peak_memory_mb if recorder else None,
        "device": str(device),
    }
    return {"cost": cost, "versions": {"tta": tta.__version__, "torch": torch.__version__}}


def _arguments(adapter: torch.nn.Module) -> dict[str, Any]:
    values = ((name, getattr(adapter, name, None)) for name in inspect.signature(type(adapter)).parameters)
    return {name: value for name, value in values if isinstance(value, bool | int | float | str)}


def _to_image(figure: Any) -> Any:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
