"""``python -m tta``."""

from tta.cli import entry_point

entry_point()
