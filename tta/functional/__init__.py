"""Pure tensor functions: entropy, normalisation statistics, sharpness, Fisher information. No state, no Lightning."""

from tta.functional.alignment import alignment_loss, gradient_correlation, standardised
from tta.functional.entropy import (
    effective_classes,
    marginal_entropy,
    softmax_entropy,
)
from tta.functional.experts import agreement, prior_offsets, rank_reversed, shot_groups, skill_diverse_loss
from tta.functional.fisher import fisher_information, fisher_penalty
from tta.functional.forward_record import ForwardRecord
from tta.functional.gradients import gradient_norm, overall_norm
from tta.functional.independence import same_logits, uses_batch_statistics
from tta.functional.information import information_maximization_loss
from tta.functional.label_shift import (
    bias_corrected_temperature,
    black_box_shift,
    class_prior,
    expectation_maximization,
    generalized_logit_adjusted_loss,
    inverse_prior,
    linear_degree,
    log_slope_degree,
    logit_adjustment,
)
from tta.functional.laplacian import knn_affinity, laplacian_adjusted, linear_affinity, rbf_affinity
from tta.functional.marginal import view_marginal_entropy
from tta.functional.meta import distillation_step, meta_distillation_loss
from tta.functional.normalization import batch_statistics, batch_statistics_only, mixed_batch_statistics
from tta.functional.patches import shuffled_patches
from tta.functional.pixels import finite_samples
from tta.functional.self_training import (
    certainty_diversity_weights,
    min_max_scaled,
    prior_corrected,
    soft_likelihood_ratio,
    symmetric_cross_entropy,
)
from tta.functional.sharpness import perturb_to_worst_case, restore_parameters
from tta.functional.style import mix_style, style
from tta.functional.supports import support_replacements

__all__ = (
    "ForwardRecord",
    "agreement",
    "alignment_loss",
    "batch_statistics",
    "batch_statistics_only",
    "bias_corrected_temperature",
    "black_box_shift",
    "certainty_diversity_weights",
    "class_prior",
    "distillation_step",
    "effective_classes",
    "expectation_maximization",
    "finite_samples",
    "fisher_information",
    "fisher_penalty",
    "generalized_logit_adjusted_loss",
    "gradient_correlation",
    "gradient_norm",
    "information_maximization_loss",
    "inverse_prior",
    "knn_affinity",
    "laplacian_adjusted",
    "linear_affinity",
    "linear_degree",
    "log_slope_degree",
    "logit_adjustment",
    "marginal_entropy",
    "meta_distillation_loss",
    "min_max_scaled",
    "mix_style",
    "mixed_batch_statistics",
    "overall_norm",
    "perturb_to_worst_case",
    "prior_corrected",
    "prior_offsets",
    "rank_reversed",
    "rbf_affinity",
    "restore_parameters",
    "same_logits",
    "shot_groups",
    "shuffled_patches",
    "skill_diverse_loss",
    "soft_likelihood_ratio",
    "softmax_entropy",
    "standardised",
    "style",
    "support_replacements",
    "symmetric_cross_entropy",
    "uses_batch_statistics",
    "view_marginal_entropy",
)
