"""Estimates of accuracy without labels."""

from tta.estimates.aetta import AETTA
from tta.estimates.base import AccuracyEstimate
from tta.estimates.confidence import AverageConfidence, AverageThresholdedConfidence
from tta.estimates.disagreement import GeneralizedDisagreement

__all__ = (
    "AETTA",
    "AccuracyEstimate",
    "AverageConfidence",
    "AverageThresholdedConfidence",
    "GeneralizedDisagreement",
)
