"""The leaderboard on Weights & Biases."""

import os
from pathlib import Path

import wandb

from tta.callbacks.wandb_offline import where_stored, why_offline
from tta.leaderboard import Leaderboard, leaderboard_wandb


def log_leaderboard(project: str, title: str, board: Leaderboard, page: Path) -> str:
    """Log the table and the page as a run of their own, offline where there is no key or no network.

    Args:
        project: Project of wandb.
        title: Name of the run.
        board: The leaderboard.
        page: Its page; wandb's own files go to a folder beside it.

    Returns:
        Where the run is, in words: its address, or its folder and why it is not on the server.
    """
    if os.environ.get("WANDB_MODE") == "disabled":
        return "not logged, WANDB_MODE=disabled"
    reason = why_offline()
    run = wandb.init(
        project=project,
        name=title,
        job_type="compare",
        dir=page.parent,
        mode=None if reason is None else "offline",
        settings=wandb.Settings(silent=True, console="off"),
    )
    run.log({"leaderboard": leaderboard_wandb(board), "page": wandb.Html(str(page), inject=False)})
    run.finish()
    return where_stored(run) if reason is None else f"offline, {reason}; {where_stored(run)}"
