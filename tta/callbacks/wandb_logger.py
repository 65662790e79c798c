"""Tracking with Weights & Biases that never stands in the way of a run."""

import os
import socket
from typing import Any
from urllib.parse import urlparse

import wandb
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_info


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
        reason = None if offline is not None else _why_offline()
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
        if run.offline:
            rank_zero_info(f"wandb: stored in {run.settings.sync_dir}; 'wandb sync {run.settings.sync_dir}' uploads it")
        else:
            rank_zero_info(f"wandb: {run.url}")


def _why_offline() -> str | None:
    mode = os.environ.get("WANDB_MODE")
    if mode in ("offline", "disabled"):
        return "WANDB_MODE=offline" if mode == "offline" else None
    settings = wandb.setup().settings
    if not (settings.api_key or wandb.api.api_key):
        return "no API key (run 'wandb login')"
    address = urlparse(settings.base_url)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=3.0).close()
    except OSError as error:
        return f"{address.hostname} cannot be reached ({error})"
    return None
