"""Leaderboards: systems ranked over a matrix of models, streams and seeds, as a page, as CSV files and as tables."""

from tta.leaderboard.board import Leaderboard, build_leaderboard, check_metric_names
from tta.leaderboard.entries import VIEW_STEP, Entry
from tta.leaderboard.page import write_pages
from tta.leaderboard.tables import leaderboard_wandb
from tta.leaderboard.terminal import leaderboard_table

__all__ = [
    "VIEW_STEP",
    "Entry",
    "Leaderboard",
    "build_leaderboard",
    "check_metric_names",
    "leaderboard_table",
    "leaderboard_wandb",
    "write_pages",
]
