"""Adaptation methods, one per file, and what they are built of. No Lightning in here."""

from tta.adapters.base import Adapter, AdapterOutput, Facts, ResetScope, Updater
from tta.adapters.bnstats import BNStats
from tta.adapters.eata import EATA
from tta.adapters.sar import SAR
from tta.adapters.select import Select
from tta.adapters.source import Source
from tta.adapters.tent import Tent

__all__ = (
    "EATA",
    "SAR",
    "Adapter",
    "AdapterOutput",
    "BNStats",
    "Facts",
    "ResetScope",
    "Select",
    "Source",
    "Tent",
    "Updater",
)
