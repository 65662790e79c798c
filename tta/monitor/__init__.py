"""Stability and collapse of an adapting model: measured, without Lightning."""

from tta.monitor.arithmetic import backward_in_forwards
from tta.monitor.budget import SourceBudget
from tta.monitor.calibration import StreamCalibration
from tta.monitor.collapse import Verdict, compare
from tta.monitor.cost import CostMeter, peak_memory_mb
from tta.monitor.estimates import EstimateTrack
from tta.monitor.frozen import FrozenSource
from tta.monitor.monitor import StreamMonitor, none_if_nan
from tta.monitor.window import SampleWindow

__all__ = (
    "CostMeter",
    "EstimateTrack",
    "FrozenSource",
    "SampleWindow",
    "SourceBudget",
    "StreamCalibration",
    "StreamMonitor",
    "Verdict",
    "backward_in_forwards",
    "compare",
    "none_if_nan",
    "peak_memory_mb",
)
