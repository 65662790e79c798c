"""Estimates of accuracy without labels."""

from tta.estimates.base import AccuracyEstimate

__all__ = ("AccuracyEstimate",)
