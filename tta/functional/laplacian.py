"""Laplacian adjusted maximum likelihood: predictions of a batch drawn towards those of neighbours in feature space."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-10
"""Added to probabilities before the logarithm, as published."""

SMALLEST_WIDTH = 1e-5
"""Distances between features of unit length that are smaller come from rounding: equal images give them."""


def rbf_affinity(features: Tensor, neighbours: int = 5) -> Tensor:
    r"""Affinities :math:`w_{ij} = \exp(-d_{ij}^2 / 2\sigma^2)`.

    The width :math:`\sigma` is the batch mean of the distance to the ``neighbours``-th nearest sample, counting the
    sample itself as the first (as published). Where it is 0, up to rounding (1e-5), there is no scale to compare
    distances with: a single sample, ``neighbours=1``, or nothing but samples with that many duplicates. All affinities
    are 0 then.

    Args:
        features: Shape ``(N, D)``, ``N >= 1``; compared at unit length.
        neighbours: At least 1; with fewer samples the farthest counts.

    Returns:
        Shape ``(N, N)``, float32, in ``[0, 1]``, symmetric.
    """
    distances = _distances(features)
    # Not kthvalue, which on a GPU refuses to run under deterministic algorithms.
    width = distances.topk(min(neighbours, len(distances)), dim=1, largest=False).values.amax(dim=1).mean()
    return torch.where(width > SMALLEST_WIDTH, torch.exp(-0.5 * (distances / width).square()), 0.0)


def knn_affinity(features: Tensor, neighbours: int = 5) -> Tensor:
    """Affinity 1 with each of the nearest samples, 0 with all others; not symmetric.

    The sample itself is no neighbour, also where it has duplicates (the published code leaves out the nearest entry
    whichever it is). Of samples equally far those of lower rows are nearer. A single sample has no neighbour.

    Args:
        features: Shape ``(N, D)``, ``N >= 1``; compared at unit length.
        neighbours: At least 1; at most ``N - 1`` are taken.

    Returns:
        Shape ``(N, N)``, float32, ``min(neighbours, N - 1)`` ones in each row.
    """
    distances = _distances(features).fill_diagonal_(math.inf)
    nearest = distances.argsort(dim=1, stable=True)[:, : min(neighbours, len(distances) - 1)]
    return torch.zeros_like(distances).scatter_(1, nearest, 1.0)


def linear_affinity(features: Tensor) -> Tensor:
    """Cosines between features.

    Args:
        features: Shape ``(N, D)``, ``N >= 1``.

    Returns:
        Shape ``(N, N)``, float32, in ``[-1, 1]``, symmetric, 1 on the diagonal.
    """
    features = F.normalize(features.float(), dim=1)
    return features @ features.T


def laplacian_adjusted(
    probabilities: Tensor, affinity: Tensor, max_steps: int = 100, tolerance: float = 1e-8
) -> Tensor:
    r"""Assignments that stay near the predictions and agree with those of neighbours.

    Lowers :math:`\sum_i \mathrm{KL}(y_i \,\|\, p_i) - \frac12 \sum_{ij} w_{ij}\, y_i^\top y_j` by the fixed point
    iteration :math:`y_i \leftarrow \mathrm{softmax}(\ln p_i + \sum_j w_{ij} y_j)`, all samples at once, from
    :math:`y_i = p_i`. For a symmetric, positive semi-definite :math:`W` no step raises that objective; for others it
    may not settle, and ``max_steps`` ends it. The energy that decides when to stop is the published one: without the
    half, and with the neighbours' assignments of the iteration before.

    Args:
        probabilities: :math:`p`, shape ``(N, C)``, float32, rows summing to one.
        affinity: :math:`W`, shape ``(N, N)``, float32, finite.
        max_steps: Most iterations, at least 1.
        tolerance: From the third iteration on, stop when the energy changed by no more than this share of itself.

    Returns:
        Logarithms of the assignments, shape ``(N, C)``, float32: finite, and ``softmax`` gives the assignments.
    """
    log_probabilities = (probabilities + EPSILON).log()
    assignments = log_probabilities.softmax(dim=1)
    log_assignments = assignments
    previous = math.inf
    for step in range(max_steps):
        pull = affinity @ assignments
        log_assignments = (log_probabilities + pull).log_softmax(dim=1)
        assignments = log_assignments.exp()
        energy = float((assignments * (log_assignments - log_probabilities - pull)).sum())
        if step > 1 and abs(energy - previous) <= tolerance * abs(previous):
            break
        previous = energy
    return log_assignments


def _distances(features: Tensor) -> Tensor:
    """Euclidean distances between features of unit length, ``(N, N)``: exactly 0 between equal ones."""
    features = F.normalize(features.float(), dim=1)
    return torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
