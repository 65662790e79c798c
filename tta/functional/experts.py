"""Losses and groups of classes for experts of different test priors."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tta.errors import InputError

EPSILON = 1e-9
"""Added to priors before the logarithm, as published."""

PRIORS = ("source", "uniform", "inverse")
"""Named target priors: the forward, the uniform and the backward expert."""

TargetPrior = str | Sequence[float]


def rank_reversed(prior: Tensor) -> Tensor:
    r"""Give the class of rank :math:`r` the probability of rank :math:`K - 1 - r`.

    Equals the normalised ``1 / prior`` only where the sorted prior is a geometric sequence. Of equal probabilities
    those of the lower classes rank lower.

    Args:
        prior: Shape ``(K,)``.

    Returns:
        The same numbers in another order, shape ``(K,)``.
    """
    ascending, order = torch.sort(prior, stable=True)
    return ascending.flip(0)[torch.argsort(order)]


def prior_offsets(class_counts: Tensor, target_priors: Sequence[TargetPrior] = PRIORS, tau: float = 2.0) -> Tensor:
    r"""What is added to each expert's logits in training, so that without it they suit a target prior.

    With :math:`\pi` the training prior: 0 for ``source``, :math:`\ln \pi` for ``uniform`` (balanced softmax),
    :math:`\ln \pi - \tau \ln \bar\pi` for ``inverse``, where :math:`\bar\pi` is :math:`\pi` with ranks reversed, and
    :math:`\ln \pi - \ln p` for a prior :math:`p` that is given as numbers.

    Where the training prior falls exponentially, the offset of ``inverse`` is :math:`(1 + \tau) \ln \pi` up to a
    constant: ``tau = 1`` suits the exact mirror of the training prior, and 2 the prior :math:`\propto \pi^{-2}`, of
    which the imbalance is squared.

    Args:
        class_counts: Training images of each class, shape ``(K,)``, any numeric dtype.
        target_priors: For each expert one of ``PRIORS``, or the probability of each class.
        tau: Strength of ``inverse``, at least 0.

    Returns:
        Shape ``(E, K)``, float64.

    Raises:
        InputError: For an unknown name, a prior of the wrong length, a negative count or a negative ``tau``.
    """
    counts = class_counts.double()
    if bool((counts < 0).any()) or not bool(counts.sum() > 0):
        raise InputError(f"class_counts={counts.tolist()}: give the number of training images of each class")
    if not tau >= 0.0:
        raise InputError(f"tau={tau}: need tau >= 0; 2 is published, 1 mirrors the training prior")
    prior = counts / counts.sum()
    source = (prior + EPSILON).log()
    named = {
        "source": torch.zeros_like(source),
        "uniform": source,
        "inverse": source - tau * (rank_reversed(prior) + EPSILON).log(),
    }
    return torch.stack([_offset(target, named, source) for target in target_priors])


def _offset(target: TargetPrior, named: dict[str, Tensor], source: Tensor) -> Tensor:
    if isinstance(target, str):
        if target not in named:
            raise InputError(f"target prior {target!r}: choose {', '.join(PRIORS)}, or give a number for each class")
        return named[target]
    values = source.new_tensor(target)
    if values.shape != source.shape or bool((values < 0).any()) or not abs(float(values.sum()) - 1) <= 1e-6:
        raise InputError(
            f"a target prior of {len(values)} numbers with sum {float(values.sum()):g}: give {len(source)} "
            "probabilities, one for each class, that sum to 1"
        )
    return source - (values + EPSILON).log()


def skill_diverse_loss(expert_logits: Tensor, targets: Tensor, offsets: Tensor) -> Tensor:
    """Sum of the experts' cross entropies, each with its offset added to its logits.

    Args:
        expert_logits: Shape ``(B, E, K)``.
        targets: Classes, shape ``(B,)``, int64.
        offsets: Of :func:`prior_offsets`, shape ``(E, K)``; its dtype, float32 or float64, is that of the computation.

    Returns:
        Scalar, in the dtype of the offsets.

    Raises:
        InputError: If the numbers of experts or classes differ.

    References:
        Self-Supervised Aggregation of Diverse Experts (SADE), NeurIPS 2022, skill-diverse expert learning,
        https://arxiv.org/abs/2107.09249. The authors' code has three experts; no difference known for them.
    """
    if expert_logits.dim() != 3 or expert_logits.shape[1:] != offsets.shape:
        raise InputError(
            f"expert logits of shape {tuple(expert_logits.shape)} do not fit {len(offsets)} target priors of "
            f"{offsets.shape[1]} classes: give a prior for each expert"
        )
    adjusted = expert_logits.to(offsets.dtype) + offsets
    losses = [F.cross_entropy(adjusted[:, expert], targets) for expert in range(len(offsets))]
    return torch.stack(losses).sum()


def shot_groups(class_counts: Tensor, thresholds: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """Classes with many, medium and few training images.

    Args:
        class_counts: Training images of each class, shape ``(K,)``.
        thresholds: Most images of a class of ``few`` plus one, and most of ``medium``: ``(20, 100)`` is usual for large
            data sets. By default thirds of the classes by their frequency; of equal frequencies lower classes count as
            more frequent.

    Returns:
        ``many``, ``medium`` and ``few``: class numbers, int64, ascending; a group without classes is left out.
    """
    if thresholds is None:
        order = torch.sort(class_counts, descending=True, stable=True).indices
        groups = dict(zip(("many", "medium", "few"), torch.tensor_split(order, 3), strict=True))
    else:
        low, high = thresholds
        groups = {
            "many": (class_counts > high).nonzero().flatten(),
            "medium": ((class_counts >= low) & (class_counts <= high)).nonzero().flatten(),
            "few": (class_counts < low).nonzero().flatten(),
        }
    return {name: classes.sort().values for name, classes in groups.items() if len(classes)}


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """Mean cosine of the class probabilities of two views.

    Args:
        first: Logits of one view, shape ``(B, C)``.
        second: Logits of the other view, shape ``(B, C)``.

    Returns:
        Scalar in ``[0, 1]``.

    References:
        Self-Supervised Aggregation of Diverse Experts (SADE), NeurIPS 2022, test-time self-supervised aggregation,
        https://arxiv.org/abs/2107.09249; epsilon of the cosine as in the authors' code.
    """
    return F.cosine_similarity(first.softmax(dim=1), second.softmax(dim=1), dim=1, eps=1e-6).mean()
