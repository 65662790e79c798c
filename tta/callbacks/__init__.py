"""What happens around the loops: records, checkpoints, reports, tracking."""

from tta.callbacks.append_file import AppendFile
from tta.callbacks.batch_checkpoint import BatchCheckpoint, last_checkpoint
from tta.callbacks.recorder import Recorder
from tta.callbacks.report import Report
from tta.callbacks.save_config import SaveRunConfig
from tta.callbacks.save_weights import SaveWeights
from tta.callbacks.wandb_logger import RunTracker

__all__ = (
    "AppendFile",
    "BatchCheckpoint",
    "Recorder",
    "Report",
    "RunTracker",
    "SaveRunConfig",
    "SaveWeights",
    "last_checkpoint",
)
