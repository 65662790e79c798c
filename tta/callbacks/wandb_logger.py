"""Tracking with Weights & Biases that never stands in the way of a run."""

import os
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_info

from tta.callbacks.wandb_offline import where_stored, why_offline


class RunTracker(WandbLogger):
    """Lightning's ``WandbLogger`` that goes offline by itself when there is no key or no network, and says so.

    Args:
        project: Project name.
        name: Display name of the run; chosen by wandb by default.
        save_dir: Folder of wandb's own files.
        offline: Force offline (``True``) or online (``False``); by default online where possible.
        **arguments: Further arguments of Lightning's ``WandbLogger``.
    """

    def __init__(
        self,
        project: str = "tta",
        name: str | None = None,
        save_dir: str = "runs",
        offline: bool | None = None,
        **arguments: Any,
    ) -> None:
        os.makedirs(save_dir, exist_ok=True)
        reason = None if offline is not None else why_offline()
        if offline or reason is not None:
            # Lightning's own offline switch is an environment variable, which wandb no longer reads at this point.
            arguments["mode"] = "offline"
        super().__init__(name=name, project=project, save_dir=save_dir, **arguments)
        if reason is not None:
            rank_zero_info(f"wandb: offline, {reason}")

    def finalize(self, status: str) -> None:
        """Finish, and say where the run is stored."""
        super().finalize(status)
        if self._experiment is None or os.environ.get("WANDB_MODE") == "disabled":
            return
        run = self._experiment
        run.finish()
        rank_zero_info(f"wandb: {where_stored(run)}")
