"""Adaptation methods, one per file, and what they are built of. No Lightning in here."""

from tta.adapters.base import Adapter, AdapterOutput, Facts, ResetScope, Updater
from tta.adapters.bnstats import BNStats
from tta.adapters.cmf import CMF
from tta.adapters.corrections import LogitAdjustment, NetworkCorrection
from tta.adapters.cotta import CoTTA
from tta.adapters.deyo import DeYO
from tta.adapters.eata import EATA
from tta.adapters.eta import ETA
from tta.adapters.frozen_views import FrozenViews
from tta.adapters.guard import Guard
from tta.adapters.itta import ITTA
from tta.adapters.label_shift import LabelShift
from tta.adapters.label_shift_network import LabelShiftNetwork
from tta.adapters.lame import LAME
from tta.adapters.memo import MEMO
from tta.adapters.meta_dmoe import MetaDMoE
from tta.adapters.note import NOTE
from tta.adapters.prior_estimators import BlackBox, MovingAverage, OraclePrior
from tta.adapters.rdumb import RDumb
from tta.adapters.roid import ROID
from tta.adapters.rotta import RoTTA
from tta.adapters.sade import SADE, Transductive
from tta.adapters.sar import SAR
from tta.adapters.select import Select
from tta.adapters.shot import SHOT
from tta.adapters.source import Source
from tta.adapters.t3a import T3A
from tta.adapters.tent import Tent
from tta.adapters.windowed_estimators import CalibratedDegree, ExpectationMaximization

__all__ = (
    "CMF",
    "EATA",
    "ETA",
    "ITTA",
    "LAME",
    "MEMO",
    "NOTE",
    "ROID",
    "SADE",
    "SAR",
    "SHOT",
    "T3A",
    "Adapter",
    "AdapterOutput",
    "BNStats",
    "BlackBox",
    "CalibratedDegree",
    "CoTTA",
    "DeYO",
    "ExpectationMaximization",
    "Facts",
    "FrozenViews",
    "Guard",
    "LabelShift",
    "LabelShiftNetwork",
    "LogitAdjustment",
    "MetaDMoE",
    "MovingAverage",
    "NetworkCorrection",
    "OraclePrior",
    "RDumb",
    "ResetScope",
    "RoTTA",
    "Select",
    "Source",
    "Tent",
    "Transductive",
    "Updater",
)
