"""Weights & Biases without a key or a network: whether a run can go there, and where it ended up."""

import os
import socket
from typing import Any
from urllib.parse import urlparse

import wandb


def why_offline() -> str | None:
    """Why a run has to be kept on this machine, in words; ``None`` if it can go to the server."""
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


def where_stored(run: Any) -> str:
    """Where a finished run of wandb is: its address, or its folder and how to upload that."""
    if run.offline:
        return f"stored in {run.settings.sync_dir}; 'wandb sync {run.settings.sync_dir}' uploads it"
    return str(run.url)
