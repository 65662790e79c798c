"""A sequential test that may be looked at after every sample."""

import torch
from torch import Tensor, nn

from tta.errors import InputError

BETS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Shares of the evidence's wealth that are bet on each sample; the wealth is averaged over them."""


class SequentialTest(nn.Module):
    r"""Tests whether a stream of paired differences went below a tolerance, with a false-alarm rate for its whole life.

    The null hypothesis is that every difference has a conditional mean of at least ``-tolerance`` given those before.
    A gambler bets against it: from each start :math:`s` the wealth
    :math:`\prod_{i \ge s} (1 + \lambda (-\tau - d_i))` is a non-negative supermartingale under the null, for every
    bet :math:`\lambda`; starts are weighted by :math:`1/(s(s+1))`, so that a long healthy past does not hide a change
    for the worse, and bets are averaged. By Ville's inequality the sum ever reaches ``1 / level`` with probability
    at most ``level``, however long the stream and however often one looks.

    Args:
        level: Probability of a false alarm, ever, in ``(0, 1)``.
        tolerance: How far below zero the mean may be, in ``[0, 1)``.

    Raises:
        InputError: For an argument out of range.

    References:
        Estimating means of bounded random variables by betting, JRSS-B 2024, section 4,
        https://arxiv.org/abs/2010.09686; mixing over starts: E-detectors, https://arxiv.org/abs/2203.03532; used on
        adapted models with a proxy of the loss: Monitoring Risks in Test-Time Adaptation, NeurIPS 2025,
        https://arxiv.org/abs/2507.08721.
    """

    wealth: Tensor
    looks: Tensor
    total: Tensor
    seen: Tensor

    def __init__(self, level: float = 0.01, tolerance: float = 0.01) -> None:
        super().__init__()
        if not 0.0 < level < 1.0 or not 0.0 <= tolerance < 1.0:
            raise InputError(f"level={level}, tolerance={tolerance}: need 0 < level < 1 and 0 <= tolerance < 1")
        self.level = level
        self.tolerance = tolerance
        self.register_buffer("wealth", torch.zeros(len(BETS), dtype=torch.float64))
        self.register_buffer("looks", torch.zeros((), dtype=torch.int64))
        self.register_buffer("total", torch.zeros((), dtype=torch.float64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def update(self, differences: Tensor) -> None:
        """Take in samples. A new start lies before the first of them.

        Args:
            differences: Shape ``(n,)``, in ``[-1, 1]``: below zero is bad.

        Raises:
            InputError: If one is out of range or not finite.
        """
        if not len(differences):
            return
        values = differences.detach().double().to(self.wealth.device)
        if not bool((values.abs() <= 1.0).all()):
            raise InputError(f"differences from {values.min():g} to {values.max():g}: need -1 <= difference <= 1")
        self.looks += 1
        weight = 1.0 / float(self.looks * (self.looks + 1))
        bets = torch.tensor(BETS, dtype=torch.float64, device=values.device) / (1.0 + self.tolerance)
        gains = torch.log1p(bets[:, None] * (-self.tolerance - values)).sum(dim=1)
        # The cap only keeps numbers finite: an alarm is raised long before.
        self.wealth.copy_(((self.wealth + weight) * gains.exp()).clamp(max=1e100))
        self.total += values.sum()
        self.seen += len(values)

    @property
    def evidence(self) -> float:
        """Against the null hypothesis, at least 0; an alarm from ``1 / level`` on."""
        return float(self.wealth.mean())

    @property
    def alarm(self) -> bool:
        """Whether the null hypothesis is rejected."""
        return self.evidence >= 1.0 / self.level

    @property
    def mean(self) -> float:
        """Mean of all differences since the start or the last reset; 0 before any."""
        return float(self.total) / max(int(self.seen), 1)

    def reset(self) -> None:
        """Start anew. The false-alarm rate holds for each life by itself."""
        for buffer in self.buffers():
            buffer.zero_()
