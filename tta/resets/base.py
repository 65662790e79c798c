"""What a reset protocol is: the contract between a protocol and whoever hosts it."""

import inspect
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, ResetScope
from tta.estimates.base import AccuracyEstimate
from tta.snapshot import SourceSnapshot
from tta.updater import GuardedUpdater


@dataclass(frozen=True)
class Adaptation:
    """A classifier under adaptation, as its host hands it to a protocol.

    Attributes:
        model: The prepared classifier.
        adapter: The method.
        updater: Its way to gradients and steps.
        source: The model's source values.
        fresh_optimizer: State of the optimiser before the stream; empty without an optimiser.
    """

    model: nn.Module
    adapter: Adapter
    updater: GuardedUpdater
    source: SourceSnapshot
    fresh_optimizer: dict[str, Any]

    def restore(self, scope: ResetScope = ResetScope.ALL) -> None:
        """Go back to the source: weights and buffers, and with ``ALL`` also optimiser and method state."""
        self.source.restore(self.model)
        if scope is ResetScope.ALL:
            self.adapter.reset()
            if self.fresh_optimizer:
                self.updater.restore(self.fresh_optimizer)


class ResetProtocol(nn.Module):
    """When the model goes back to its source, whatever the method.

    A protocol overrides :meth:`before` or :meth:`after`, and :meth:`reset` if it has state. All its state lives in
    registered buffers, so ``state_dict``, ``.to()`` and resuming just work; random draws come from generators seeded
    by an argument. It never sees labels. One object belongs to one stream.

    Hosts call the protocol itself once a batch. The order of events is: :meth:`before`, the reset it asks for, the
    method's prediction and step, :meth:`after`, and the reset that this or the method asks for.

    Attributes:
        name: How summaries call it; the name of the class where empty.
        one_process: Several processes could not keep it in step.
    """

    name: str = ""
    one_process: bool = False

    def prepare(self, adaptation: Adaptation) -> None:
        """Look at the classifier once, prepared and at its source, before the stream. Most protocols need not."""

    def before(self, adaptation: Adaptation, x: Tensor, domains: Tensor | None) -> ResetScope | None:
        """What must be restored before a batch is predicted.

        Args:
            adaptation: The classifier under adaptation.
            x: Images, shape ``(B, ...)``; pixels may be non-finite.
            domains: Number of each sample's domain, shape ``(B,)``, int64; ``None`` where the host knows none.

        Returns:
            The scope, or ``None`` for nothing.
        """
        return None

    def after(self, adaptation: Adaptation, x: Tensor, output: AdapterOutput) -> ResetScope | None:
        """What must be restored after the method's step. Protocols that restore a part do so here, and return ``None``.

        Args:
            adaptation: The classifier under adaptation.
            x: Images, shape ``(B, ...)``; ``output.finite`` tells which have only finite pixels.
            output: What the method gave for them.

        Returns:
            The scope, or ``None`` for nothing.
        """
        return None

    def restarted(self) -> None:
        """The model is the source again, on this protocol's wish or the method's: forget what was seen of it."""

    def reset(self) -> None:
        """Back to the start of the stream. Protocols with state override this."""

    def scalars(self) -> dict[str, Tensor]:
        """State that is worth a curve, the same names at every batch. Protocols that have some override this."""
        return {}

    def stretch(self, batch_size: int) -> int | None:
        """Most samples that a method learns from between two resets; ``None`` where there is no such bound."""
        return None

    @property
    def estimates(self) -> tuple[AccuracyEstimate, ...]:
        """Estimates of accuracy that it goes by."""
        return ()

    @property
    def label(self) -> str:
        """Name, and the arguments that are not at their default."""
        parameters = inspect.signature(type(self)).parameters.values()
        given = [(p, getattr(self, p.name, p.default)) for p in parameters]
        told = [f"{p.name}={_short(value)}" for p, value in given if value is not p.default and value != p.default]
        name = self.name or type(self).__name__
        return f"{name}({', '.join(told)})" if told else name

    def forward(self, adaptation: Adaptation, x: Tensor, domains: Tensor | None = None) -> AdapterOutput:
        """Predict a batch and learn from it, with what is restored before and after.

        Args:
            adaptation: The classifier under adaptation.
            x: Images, shape ``(B, ...)``, ``B >= 1``, floating point.
            domains: Number of each sample's domain, shape ``(B,)``, int64; ``None`` where the host knows none.

        Returns:
            The method's output; ``reset`` is the widest scope that was restored at this batch.

        Raises:
            InputError: If the method or the protocol cannot take the batch.
        """
        first = self._restore(adaptation, self.before(adaptation, x, domains))
        output: AdapterOutput = adaptation.adapter(adaptation.model, x, adaptation.updater)
        asked = wider(output.reset, self.after(adaptation, x, output))
        scalars = {**output.scalars, **self.scalars()}
        last = self._restore(adaptation, asked)
        return replace(output, scalars=scalars, reset=wider(first, last))

    def _restore(self, adaptation: Adaptation, scope: ResetScope | None) -> ResetScope | None:
        if scope is not None:
            adaptation.restore(scope)
            self.restarted()
        return scope


def wider(one: ResetScope | None, other: ResetScope | None) -> ResetScope | None:
    """The wider of two scopes."""
    return ResetScope.ALL if ResetScope.ALL in (one, other) else one or other


def _short(value: Any) -> str:  # noqa: ANN401  any argument
    return type(value).__name__ if isinstance(value, nn.Module) else str(value)
