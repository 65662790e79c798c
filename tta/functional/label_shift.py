"""Label shift: how far a class prior is from the source's, losses and logits for another prior, and its estimation."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tta.errors import InputError

SMALLEST = 1e-12
"""Keeps denominators above zero."""

FLAT = 1e-6
"""A source prior whose squared distance from the uniform one is smaller counts as uniform."""


def class_prior(numbers: Sequence[float] | Tensor, name: str = "prior") -> Tensor:
    """A distribution over classes from their counts or probabilities.

    Args:
        numbers: A positive number per class.
        name: The place, for messages.

    Returns:
        Float32, shape ``(C,)``; sums to 1.

    Raises:
        InputError: If there are fewer than two, or one is not positive and finite.
    """
    values = torch.as_tensor(numbers, dtype=torch.float64)
    if values.dim() != 1 or len(values) < 2:
        raise InputError(f"{name} has shape {tuple(values.shape)}: give one number for each of two or more classes")
    if not bool((values > 0).all()) or not bool(torch.isfinite(values).all()):
        bad = values[~((values > 0) & torch.isfinite(values))][0]
        raise InputError(f"{name} holds {bad:g}: every class needs a positive number; leave out classes without images")
    return (values / values.sum()).float()


def inverse_prior(prior: Tensor) -> Tensor:
    """The prior proportional to ``1 / prior``; the mirror image of an exponentially long-tailed one.

    Args:
        prior: Positive probabilities, float, shape ``(C,)``.

    Returns:
        Float, shape ``(C,)``; sums to 1.
    """
    inverse = 1 / prior
    return inverse / inverse.sum()


def linear_degree(prior: Tensor, source: Tensor) -> Tensor:
    """Degree of imbalance as a projection: 1 at the source prior, 0 at the uniform one, negative beyond.

    ``<p - u, s - u> / |s - u|^2``. Steady, since rare classes weigh little, and for the same reason flat on the other
    side: the inverse of a prior of ratio 100 over ten classes is at -0.55.

    Args:
        prior: Probabilities, float, shape ``(..., C)``.
        source: Source prior, float, shape ``(C,)``.

    Returns:
        Float, shape ``(...)``; 0 everywhere if the source prior is uniform.
    """
    away = source - 1 / len(source)
    return (prior - 1 / len(source)) @ away / away.square().sum().clamp_min(FLAT)


def log_slope_degree(prior: Tensor, source: Tensor, floor: float = 1e-2) -> Tensor:
    """Degree of imbalance as the slope of the log prior on the log source prior: about 1, 0 and -1 at the anchors.

    Args:
        prior: Probabilities, float, shape ``(..., C)``.
        source: Source prior, float, shape ``(C,)``.
        floor: Added to ``prior``, as a share of the uniform probability ``1 / C``, so that classes estimated at nothing
            do not decide alone.

    Returns:
        Float, shape ``(...)``; 0 everywhere if the source prior is uniform.
    """
    log_source = source.log() - source.log().mean()
    log_prior = (prior + floor / len(source)).log()
    log_prior = log_prior - log_prior.mean(dim=-1, keepdim=True)
    return log_prior @ log_source / log_source.square().sum().clamp_min(FLAT)


def generalized_logit_adjusted_loss(
    logits: Tensor, labels: Tensor, source: Tensor, tau: float, drawn: Tensor | None = None
) -> Tensor:
    """Cross entropy of ``logits + tau log source``: makes logits right for a prior proportional to source^(1-tau).

    With ``tau`` 0 the logits suit the source prior, with 1 the uniform one (balanced softmax), with 2 its inverse.
    Samples that were drawn with another prior than the source's get ``log drawn - (1 - tau) log source`` instead, for
    the same logits.

    Args:
        logits: Shape ``(B, C)``.
        labels: Int64, shape ``(B,)``.
        source: Source prior, float, shape ``(C,)``.
        tau: Strength of the adjustment.
        drawn: Prior that the samples were drawn with, float, shape ``(C,)``; the source's if ``None``.

    Returns:
        Scalar.

    References:
        Long-tail learning via logit adjustment, ICLR 2021, eq. (10), https://arxiv.org/abs/2007.07314, is ``tau`` 1.
    """
    drawn = source if drawn is None else drawn
    return F.cross_entropy(logits + drawn.log() - (1 - tau) * source.log(), labels)


def logit_adjustment(prior: Tensor, source: Tensor, floor: float = 1e-2) -> Tensor:
    """What is to be added to the logits of a classifier of prior ``source`` to make it one of ``prior``.

    Args:
        prior: Probabilities, float, shape ``(C,)``.
        source: Source prior, float, shape ``(C,)``.
        floor: Added to ``prior``, as a share of the uniform probability ``1 / C``: a class estimated at nothing stays
            possible.

    Returns:
        ``log(prior + floor / C) - log(source)``, float, shape ``(C,)``.
    """
    return (prior + floor / len(source)).log() - source.log()


def expectation_maximization(
    posteriors: Tensor,
    source: Tensor,
    weights: Tensor | None = None,
    concentration: float = 1.0,
    steps: int = 100,
    tolerance: float = 1e-6,
) -> Tensor:
    r"""Maximum likelihood of the class prior of unlabelled samples, from a classifier's posteriors.

    Starts at ``source``. E step: ``r_ic`` proportional to ``posteriors_ic p_c / source_c``; M step: ``p_c``
    proportional to ``concentration - 1 + sum_i weights_i r_ic``. The likelihood is concave, so the start decides
    nothing but the time.

    Args:
        posteriors: Calibrated posteriors under the source prior, float, shape ``(N, C)``, rows that sum to 1.
        source: Source prior, float, shape ``(C,)``.
        weights: Weight of each sample, float, shape ``(N,)``, at least 0; 1 by default.
        concentration: Of a symmetric Dirichlet prior over priors, at least 1. At 1 nothing is assumed; above, the
            estimate is drawn towards the uniform prior, as by ``concentration - 1`` more samples of each class.
        steps: Iterations at most.
        tolerance: Stop when no probability changes by more.

    Returns:
        Float, shape ``(C,)``; sums to 1. ``source`` itself if there is no sample and ``concentration`` is 1.

    References:
        Adjusting the outputs of a classifier to new a priori probabilities, Saerens et al., Neural Computation 2002,
        eq. (2.9). Maximum likelihood with bias-corrected calibration is hard to beat at adapting to label shift, ICML
        2020, https://arxiv.org/abs/1901.06852, shows concavity, and why posteriors must be calibrated.
    """
    weights = posteriors.new_ones(len(posteriors)) if weights is None else weights
    total = weights.sum() + len(source) * (concentration - 1)
    if not bool(total > 0):
        return source.clone()
    likelihood, prior = posteriors / source, source
    for _ in range(steps):
        joint = likelihood * prior
        counts = weights @ (joint / joint.sum(dim=1, keepdim=True).clamp_min(SMALLEST))
        updated = (counts + concentration - 1) / (counts.sum() + len(source) * (concentration - 1))
        change = (updated - prior).abs().max()
        prior = updated
        if bool(change <= tolerance):
            break
    return prior


def black_box_shift(predicted: Tensor, confusion: Tensor, source: Tensor, ridge: float = 0.0) -> Tensor:
    """Class prior from how often each class is predicted, and from the confusion of the classifier on source data.

    Solves ``confusion w = predicted`` for the weights ``w = prior / source`` by least squares, drawn towards ``w = 1``
    (no shift) by ``ridge``; negative weights become 0.

    Args:
        predicted: Share of each predicted class (or mean posterior) on the target, float, shape ``(C,)``.
        confusion: Joint distribution on source data, rows the prediction, columns the class, float, ``(C, C)``.
        source: Source prior, float, shape ``(C,)``.
        ridge: Weight of the regularisation, at least 0, relative to the mean squared singular value of ``confusion``.

    Returns:
        Float, shape ``(C,)``; sums to 1.

    References:
        Detecting and correcting for label shift with black box predictors, ICML 2018, proposition 2,
        https://arxiv.org/abs/1802.03916; with soft predictions as BBSE-soft. Regularised as in Regularized learning for
        domain adaptation under label shifts, ICLR 2019, eq. (4), https://arxiv.org/abs/1903.09734, but squared.
    """
    joint = confusion.double()
    residual = predicted.double() - joint.sum(dim=1)
    strength = ridge * joint.square().sum() / len(source)
    system = joint.T @ joint + strength * torch.eye(len(source), dtype=joint.dtype, device=joint.device)
    theta = torch.linalg.pinv(system, hermitian=True) @ (joint.T @ residual)
    prior = (1 + theta).clamp_min(0.0) * source
    scaled: Tensor = prior / prior.sum().clamp_min(SMALLEST)
    return scaled.to(source.dtype)


def bias_corrected_temperature(
    logits: Tensor, labels: Tensor, log_priors: Tensor, bias: Tensor, ridge: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Temperature and class biases that make ``softmax(logits / temperature + bias)`` the posterior of a uniform prior.

    Minimises the cross entropy of ``logits / temperature + bias + log_priors``, where each sample brings the log of the
    prior that it was drawn with, plus ``ridge`` times the mean squared distance of the biases from where they start,
    which keeps classes with few samples steady.

    Args:
        logits: Of held-out samples, float, shape ``(N, C)``.
        labels: Int64, shape ``(N,)``.
        log_priors: Log of the prior of each sample's draw, float, shape ``(N, C)``.
        bias: Biases to start from, float, shape ``(C,)``.
        ridge: Weight of the regularisation, at least 0.

    Returns:
        Temperature, positive scalar, and biases, shape ``(C,)``; float32.

    References:
        Maximum likelihood with bias-corrected calibration is hard to beat at adapting to label shift, ICML 2020,
        section 3.2, https://arxiv.org/abs/1901.06852; there on samples of the source prior alone, without ridge.
    """
    scores, start = logits.detach().double(), bias.detach().double()
    offsets = log_priors.double() + start
    log_temperature = torch.zeros((), dtype=torch.float64, device=logits.device, requires_grad=True)
    moved = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature, moved], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        fit = F.cross_entropy(scores / log_temperature.exp() + moved + offsets, labels)
        loss = fit + ridge * moved.square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return log_temperature.detach().exp().float(), (start + moved.detach()).float()
