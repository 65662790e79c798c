"""Reset protocols: when a classifier under adaptation goes back to its source, and how far."""

from tta.resets.accuracy_estimate import AccuracyEstimateReset, AdaptedClassifier
from tta.resets.base import Adaptation, ResetProtocol
from tta.resets.entropy_average import EntropyAverage
from tta.resets.partial import FisherRestore, PartialRestore, StochasticRestore
from tta.resets.schedules import Never, PerBatch, PerDomain, Periodic, reset_protocol

__all__ = (
    "AccuracyEstimateReset",
    "Adaptation",
    "AdaptedClassifier",
    "EntropyAverage",
    "FisherRestore",
    "Never",
    "PartialRestore",
    "PerBatch",
    "PerDomain",
    "Periodic",
    "ResetProtocol",
    "StochasticRestore",
    "reset_protocol",
)
