"""Pure tensor functions: entropy, normalisation statistics, sharpness, Fisher information. No state, no Lightning."""

from tta.functional.entropy import (
    effective_classes,
    marginal_entropy,
    softmax_entropy,
)
from tta.functional.fisher import fisher_information, fisher_penalty
from tta.functional.gradients import gradient_norm, overall_norm
from tta.functional.normalization import batch_statistics, batch_statistics_only, mixed_batch_statistics
from tta.functional.sharpness import perturb_to_worst_case, restore_parameters

__all__ = (
    "batch_statistics",
    "batch_statistics_only",
    "effective_classes",
    "fisher_information",
    "fisher_penalty",
    "gradient_norm",
    "marginal_entropy",
    "mixed_batch_statistics",
    "overall_norm",
    "perturb_to_worst_case",
    "restore_parameters",
    "softmax_entropy",
)
