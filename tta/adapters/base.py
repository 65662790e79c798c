"""What every adaptation method is: the contract between a method and whoever hosts it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tta.errors import InputError
from tta.functional.pixels import finite_samples
from tta.growing_buffers import GrowingBuffers


class ResetScope(Enum):
    """What a method asks its host to restore after a step."""

    WEIGHTS = "weights"
    """Model parameters and buffers only; optimiser and method state go on."""
    ALL = "all"
    """Model, optimiser and method state: as if the stream had just begun."""


@dataclass(frozen=True)
class Facts:
    """Declared properties of a method, checked by the test suite.

    Attributes:
        needs_gradients: The method back-propagates and needs an optimiser.
        reads_gradients: The method reads ``.grad`` itself, not only through the updater.
        steps_per_batch: Optimiser steps per batch at most.
        smallest_batch: Fewest samples the method accepts on a network without batch normalisation.
        needs_batch_norm: The method does nothing on a network without batch normalisation, and refuses it.
        needs_source_data: The method must see source images before the stream starts (:meth:`Adapter.observe_source`).
        needs_source_labels: The method must see source images with their labels before the stream starts
            (:meth:`Adapter.observe_labelled_source`).
        needs_target_data: The method must see the stream's images before it predicts them
            (:meth:`Adapter.observe_target`): it is transductive, not online.
        needs_companion: The method needs something trained for it before the stream: a companion file, or a model with
            parts of its own.
        predicts_after: Returned logits are those from after the update.
        smallest_domain: Fewest samples of a domain from which the method learns anything.
        forwards: Forward passes of the model per sample, an upper bound; those of parts inside it do not count. A graph
            built from a :class:`~tta.functional.ForwardRecord` is none. Where layers must be computed again for it, up
            to 0.4 more on average, and at the first batch up to one.
        backwards: Backward passes through the model per sample, an upper bound.
        changes_statistics: The method moves the running statistics of normalisation layers.
        one_process: Processes cannot share the method: what it keeps of the stream, or the step that it takes, belongs
            to the images of one of them.
        augments: The method draws random views of the images, which must lie in ``[0, 1]``: normalisation belongs into
            the model.
        trains: What the optimiser changes, in words.
        paper: Address of the paper.
    """

    needs_gradients: bool = False
    reads_gradients: bool = False
    steps_per_batch: int = 0
    smallest_batch: int = 1
    needs_batch_norm: bool = False
    needs_source_data: bool = False
    needs_source_labels: bool = False
    needs_target_data: bool = False
    needs_companion: bool = False
    predicts_after: bool = False
    smallest_domain: int = 1
    forwards: int = 1
    backwards: int = 0
    changes_statistics: bool = False
    one_process: bool = False
    augments: bool = False
    trains: str = "nothing"
    paper: str = ""


@dataclass(frozen=True)
class AdapterOutput:
    """What one step of a method gives back. Every tensor is detached.

    Attributes:
        logits: Predictions of the batch, shape ``(B, C)``, float32.
        loss: The value that was minimised, scalar; ``None`` when the batch taught nothing.
        reliable: Which samples taught, shape ``(B,)``, bool; ``None`` for methods that select none.
        finite: Which samples had only finite pixels, shape ``(B,)``, bool. The others were predicted with their
            non-finite pixels set to zero and never reached weights, statistics or method state. Filled in by
            :meth:`Adapter.forward`.
        scalars: Method-specific figures worth a curve; :meth:`Adapter.scalars` are added.
        reset: What the host must restore now, if anything; :meth:`Adapter.wants_reset` where ``None``.
        source_logits: What the source model predicts for the batch, shape ``(B, C)``, float32, from a method that has
            run it on every sample anyway: the host need not run it again.
    """

    logits: Tensor
    loss: Tensor | None = None
    reliable: Tensor | None = None
    finite: Tensor | None = None
    scalars: Mapping[str, Tensor] = field(default_factory=dict)
    reset: ResetScope | None = None
    source_logits: Tensor | None = None


class Updater(Protocol):
    """All that a method knows of optimisation. Hosts implement it; precision and processes stay on their side."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of ``loss``."""

    def step(self) -> bool:
        """Step the optimiser and clear gradients; skip, and return ``False``, when a gradient is not finite."""

    def discard(self) -> None:
        """Clear gradients without a step."""

    def snapshot(self) -> dict[str, Any]:
        """A copy of the optimiser's state, tensors and plain types only; empty without an optimiser."""

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Take back what :meth:`snapshot` gave."""

    def any(self, flag: bool) -> bool:
        """Whether any process holds ``True``: gradients are exchanged by all processes or by none."""

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over processes, so that method state stays equal on all of them."""


class Adapter(GrowingBuffers, ABC):
    """A test-time adaptation method.

    A method writes a constructor whose typed arguments are its hyper-parameters, :meth:`prepare` and :meth:`adapt`.
    All its state lives in registered buffers and parameters, so ``state_dict``, ``.to()`` and resuming just work. It
    sees images and a model: never labels, never a trainer, never a configuration. The model is an argument, not a
    member, so one adapter object belongs to one stream but owns no weights of the model.

    Hosts call the adapter itself, ``output = adapter(model, x, updater)``, which keeps non-finite samples away from
    :meth:`adapt`.
    """

    facts: Facts = Facts()

    @abstractmethod
    def prepare(self, model: nn.Module) -> None:
        """Set modes and ``requires_grad`` of the model. Idempotent: hosts call it again after ``model.eval()``.

        Args:
            model: The source classifier.

        Raises:
            InputError: If the model has nothing that the method can adapt; the message lists what it has.
        """

    @abstractmethod
    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """Predict a batch and learn from it.

        Args:
            model: The prepared classifier.
            x: Images, shape ``(B, ...)``, ``B >= 1``, all finite.
            updater: Way to gradients and steps.

        Returns:
            Predictions and what happened.
        """

    def reset(self) -> None:
        """Forget everything learnt from the stream. Methods with state override this."""

    def observe_source(self, model: nn.Module, batches: Iterable[Tensor]) -> None:
        """See source images once, before the stream, in the prepared model. Methods that need it override this.

        Args:
            model: The prepared classifier with source weights.
            batches: Image batches on the model's device.
        """

    def observe_labelled_source(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """See source images with their labels once, before the stream. Methods that need them override this.

        Args:
            model: The prepared classifier with source weights.
            batches: Image batches on the model's device with their classes, int64, shape ``(B,)``.
        """

    def observe_target(self, model: nn.Module, batches: Iterable[Tensor], updater: Updater) -> None:
        """See the images of the whole stream once, before predicting any. Transductive methods override this.

        Args:
            model: The prepared classifier with source weights.
            batches: Image batches of the stream on the model's device, in its order, without labels.
            updater: Way to gradients and steps.
        """

    def trainable(self, model: nn.Module) -> list[nn.Parameter]:
        """Parameters that the optimiser gets: all of the model that :meth:`prepare` left requiring gradients.

        Methods that train parameters of their own return those; they create them in :meth:`prepare` and put their
        values back, in place, in :meth:`reset`.
        """
        return [parameter for parameter in model.parameters() if parameter.requires_grad]

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """Predict without learning, in the method's modes. Changes nothing.

        Args:
            model: The prepared classifier.
            x: Images, shape ``(B, ...)``.

        Returns:
            Logits, shape ``(B, C)``, float32.
        """
        with torch.no_grad(), told_if_too_few(len(x)):
            return checked_logits(model(x.nan_to_num(0.0, 0.0, 0.0)))

    def scalars(self) -> dict[str, Tensor]:
        """Method state that is worth a curve, the same names at every batch. Methods that have some override this."""
        return {}

    def notes(self) -> list[str]:
        """What the method has to tell about the stream so far, a sentence each. Most have nothing."""
        return []

    def wants_reset(self) -> ResetScope | None:
        """What the host must restore after this step, from state that all processes share. Most methods never ask."""
        return None

    def forward(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """Predict and adapt, with non-finite samples kept apart.

        Args:
            model: The prepared classifier.
            x: Images, shape ``(B, ...)``, ``B >= 1``, floating point.
            updater: Way to gradients and steps.

        Returns:
            The output of :meth:`adapt`, its rows in the order of ``x``.

        Raises:
            InputError: If the batch is empty, smaller than the method allows, or too small for batch statistics.
        """
        self._check_batch(x)
        finite = finite_samples(x)
        with _no_cast_cache(), told_if_too_few(len(x)):
            if bool(finite.all()):
                output = self.adapt(model, x, updater)
            else:
                output = self._adapt_on_finite(model, x, finite, updater)
        scalars = {**output.scalars, **self.scalars()}
        return replace(output, finite=finite, scalars=scalars, reset=output.reset or self.wants_reset())

    def _check_batch(self, x: Tensor) -> None:
        if len(x) < max(1, self.facts.smallest_batch):
            name = type(self).__name__
            raise InputError(f"{name} got a batch of {len(x)}: it needs at least {max(1, self.facts.smallest_batch)}")

    def _adapt_on_finite(self, model: nn.Module, x: Tensor, finite: Tensor, updater: Updater) -> AdapterOutput:
        flagged = self.predict(model, x)
        try:
            output = self.adapt(model, x[finite], updater) if bool(finite.any()) else None
        except ValueError as error:
            # So few finite samples are left that batch statistics fail: nobody learns from this batch.
            if not is_too_few(error):
                raise
            output = None
        if output is None:
            self.sit_out(model, x, updater)
            return AdapterOutput(flagged, reliable=torch.zeros_like(finite))
        reliable = None
        if output.reliable is not None:
            reliable = torch.zeros_like(finite)
            reliable[finite] = output.reliable
        flagged[finite] = output.logits
        return replace(output, logits=flagged, reliable=reliable, source_logits=None)

    def sit_out(self, model: nn.Module, x: Tensor, updater: Updater) -> None:
        """Take part in what other processes do with their batches, without contributing.

        Methods whose processes exchange gradients override this.
        """


def is_too_few(error: ValueError) -> bool:
    """Whether batch normalisation says that it has one value per channel, which have no variance."""
    return "more than 1 value per channel" in str(error)


@contextmanager
def told_if_too_few(size: int) -> Iterator[None]:
    """Say in the words of this library, within the context, that a batch is too small for batch statistics.

    Args:
        size: Samples in the batch.

    Raises:
        InputError: If it is.
    """
    try:
        yield
    except ValueError as error:
        if not is_too_few(error):
            raise
        raise InputError(
            f"a batch of {size} leaves one value per channel at a batch normalisation layer, too few for batch "
            "statistics: use a larger batch, or BNStats with batch_weight below 1"
        ) from error


@contextmanager
def _no_cast_cache() -> Iterator[None]:
    """Autocast casts weights anew at each use: its cache does not notice a step or a perturbation in between."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)
        torch.clear_autocast_cache()


def checked_logits(logits: Any) -> Tensor:  # noqa: ANN401  whatever a foreign model returns
    """Detached float32 logits, or an error that says what the model returned instead.

    Raises:
        InputError: If it is not a floating point tensor of shape ``(B, C)``.
    """
    if not isinstance(logits, Tensor) or logits.dim() != 2 or not logits.is_floating_point():
        got = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"the model returned {got}: adapters need a classifier that returns logits of shape (B, C)")
    return logits.detach().float()
