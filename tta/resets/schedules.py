"""Protocols that go by the clock of the stream: batches and known domains."""

import torch
from torch import Tensor

from tta.adapters.base import AdapterOutput, ResetScope
from tta.errors import InputError
from tta.resets.base import Adaptation, ResetProtocol


class Never(ResetProtocol):
    """Continual adaptation: nothing is reset but what the method itself asks for."""

    name = "continual"


class PerBatch(ResetProtocol):
    """Episodic adaptation: every batch is adapted to from the source.

    Weights, optimiser and method state are restored before each batch but the first, so that every batch is predicted
    as if it were the first of a stream.

    References:
        The option ``episodic`` of Tent's code, https://arxiv.org/abs/2006.10726.
    """

    name = "episodic"
    started: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("started", torch.tensor(False))

    def before(self, adaptation: Adaptation, x: Tensor, domains: Tensor | None) -> ResetScope | None:
        """Everything, except at the first batch."""
        return ResetScope.ALL if bool(self.started) else None

    def after(self, adaptation: Adaptation, x: Tensor, output: AdapterOutput) -> ResetScope | None:
        """Nothing; the next batch is not the first."""
        self.started.fill_(True)
        return None

    def reset(self) -> None:
        """The next batch is the first."""
        self.started.fill_(False)

    def stretch(self, batch_size: int) -> int:
        """One batch."""
        return batch_size


class PerDomain(ResetProtocol):
    """A reset at every known domain boundary, before the first batch of the new domain.

    Knowing the boundaries is a privilege that most deployments have not; published per-corruption tables have it.

    Raises:
        InputError: If a batch mixes domains, or the host does not know them.
    """

    name = "per_domain"
    one_process = True
    domain: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("domain", torch.tensor(-1))

    def before(self, adaptation: Adaptation, x: Tensor, domains: Tensor | None) -> ResetScope | None:
        """Everything, where the domain is another than that of the last batch."""
        if domains is None:
            raise InputError("protocol per_domain needs the domain of every batch and was told none")
        if not bool((domains == domains[0]).all()):
            raise InputError("protocol per_domain needs one domain per batch: use another order than mixed")
        last, current = int(self.domain), int(domains[0])
        self.domain.fill_(current)
        return ResetScope.ALL if last not in (-1, current) else None

    def reset(self) -> None:
        """The next batch is of the first domain."""
        self.domain.fill_(-1)


class Periodic(ResetProtocol):
    """A reset after every so many batches, as RDumb does to ETA.

    Weights, optimiser and method state are restored after the step of the last batch of a period. A batch from which
    nothing was learnt counts. A reset that the method asks for does not start a new period.

    Args:
        every: Batches in a period, at least 1; the paper takes 1,000 of 64 images.

    Raises:
        InputError: For a value out of range.

    References:
        RDumb: A simple approach that questions our progress in continual test-time adaptation, NeurIPS 2023,
        https://arxiv.org/abs/2306.05401, section 4. Its code resets before the first batch of a period, and so at step
        0 too: every prediction is the same, only a stream that ends with a period ends with the adapted model there.
    """

    count: Tensor

    def __init__(self, every: int = 1000) -> None:
        super().__init__()
        if every < 1:
            raise InputError(f"every={every}: need at least 1 batch between two resets")
        self.every = every
        self.register_buffer("count", torch.tensor(0))

    def after(self, adaptation: Adaptation, x: Tensor, output: AdapterOutput) -> ResetScope | None:
        """Everything, where the period is over."""
        self.count += 1
        if self.count < self.every:
            return None
        self.count.zero_()
        return ResetScope.ALL

    def reset(self) -> None:
        """A new period."""
        self.count.zero_()

    def stretch(self, batch_size: int) -> int:
        """One period."""
        return self.every * batch_size


NAMED: dict[str, type[ResetProtocol]] = {protocol.name: protocol for protocol in (Never, PerDomain, PerBatch)}
"""Protocols that have no argument, by name."""


def reset_protocol(protocol: str | ResetProtocol) -> ResetProtocol:
    """The protocol of that name, or the one given.

    Raises:
        InputError: If it is neither a known name nor a protocol.
    """
    if isinstance(protocol, ResetProtocol):
        return protocol
    if not isinstance(protocol, str) or protocol not in NAMED:
        raise InputError(
            f"unknown reset protocol {protocol!r}: choose from {', '.join(NAMED)}, or give an instance of a "
            "ResetProtocol, such as tta.resets.Periodic(every=1000)"
        )
    return NAMED[protocol]()
