"""Corruptions that make a target domain out of clean images, in batches, on any device."""

from datamodules.corruptions import blur, digital, elastic, extra, noise, spatter, weather  # noqa: F401  registers
from datamodules.corruptions.domain import Domain, corrupt, read_domain
from datamodules.corruptions.draws import Draws, generator_for, image_seed
from datamodules.corruptions.levels import LEVELS
from datamodules.corruptions.registry import CORRUPTIONS, check_severity

__all__ = [
    "CORRUPTIONS",
    "LEVELS",
    "Domain",
    "Draws",
    "check_severity",
    "corrupt",
    "generator_for",
    "image_seed",
    "read_domain",
]
