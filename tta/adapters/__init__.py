"""Adaptation methods, one per file, and what they are built of. No Lightning in here."""

from tta.adapters.base import Adapter, AdapterOutput, Facts, ResetScope, Updater
from tta.adapters.bnstats import BNStats
from tta.adapters.corrections import LogitAdjustment, NetworkCorrection
from tta.adapters.eata import EATA
from tta.adapters.itta import ITTA
from tta.adapters.label_shift import LabelShift
from tta.adapters.label_shift_network import LabelShiftNetwork
from tta.adapters.meta_dmoe import MetaDMoE
from tta.adapters.prior_estimators import BlackBox, MovingAverage, OraclePrior
from tta.adapters.sade import SADE, Transductive
from tta.adapters.sar import SAR
from tta.adapters.select import Select
from tta.adapters.source import Source
from tta.adapters.tent import Tent
from tta.adapters.windowed_estimators import CalibratedDegree, ExpectationMaximization

__all__ = (
    "EATA",
    "ITTA",
    "SADE",
    "SAR",
    "Adapter",
    "AdapterOutput",
    "BNStats",
    "BlackBox",
    "CalibratedDegree",
    "ExpectationMaximization",
    "Facts",
    "LabelShift",
    "LabelShiftNetwork",
    "LogitAdjustment",
    "MetaDMoE",
    "MovingAverage",
    "NetworkCorrection",
    "OraclePrior",
    "ResetScope",
    "Select",
    "Source",
    "Tent",
    "Transductive",
    "Updater",
)
