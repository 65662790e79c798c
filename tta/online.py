"""A classifier that adapts while it predicts: plain PyTorch, no Lightning, no configuration."""

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tta.adapters.base import Adapter, AdapterOutput
from tta.adapters.registry import adapter_class
from tta.errors import InputError
from tta.resets import Adaptation, Never, ResetProtocol, reset_protocol
from tta.snapshot import SourceSnapshot
from tta.source_batches import device_of, show_source, source_images
from tta.updater import TorchUpdater

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=2.5e-4, momentum=0.9),
    "adam": partial(torch.optim.Adam, lr=1e-3),
    "adamw": partial(torch.optim.AdamW, lr=1e-3),
}
"""Optimisers by name. Defaults: SGD as published for ImageNet at batch 64, Adam as published for CIFAR at batch 200."""


class OnlineModel(nn.Module):
    """A classifier whose ``forward`` predicts a batch and adapts to it.

    The model is adapted in place; pass a copy to keep the original. Call under ``torch.no_grad()`` or
    ``torch.inference_mode()`` if you like: gradients are enabled inside where the method needs them.

    ``state_dict()`` carries weights, optimiser, method and protocol state, and the source values that :meth:`reset`
    goes back to; it loads with ``weights_only=True`` into an ``OnlineModel`` built the same way, and raises
    ``InputError``, before anything is taken over, where the network, method or protocol is another. To fine-tune
    afterwards, set ``track_running_stats`` of its batch normalisation layers again: methods that use batch statistics
    clear it.

    Attributes:
        model: The classifier.
        adapter: The method.
        optimizer: The optimiser, or ``None`` for methods that take no step.
        last: What the last batch gave: losses, reliable samples, which samples had non-finite pixels.
        protocol: When the model goes back to its source.
        resets: At how many batches it did, on the protocol's or the method's wish; partial restores do not count.

    Args:
        model: Classifier that maps a batch ``(B, ...)`` to logits ``(B, C)``, with source weights.
        adapter: The method.
        optimizer: Callable from a list of parameters to an optimiser.
        source: Source images, for methods that must see some (EATA's Fisher information): an iterable of batches,
            each a tensor, a sequence whose first item is one, or a mapping with key ``image``. For those that need
            labels too (a guard), a sequence whose second item is the labels, or a mapping with key ``label``.
        resets: When to go back to the source: a protocol of :mod:`tta.resets`, or ``continual`` (never),
            ``per_domain`` (where :meth:`new_domain` says so) or ``episodic`` (before every batch).

    Raises:
        InputError: If the method finds nothing to adapt in the model, or cannot be reset.
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        optimizer: OptimizerFactory = OPTIMIZERS["sgd"],
        source: Iterable[Any] | None = None,
        resets: str | ResetProtocol = "continual",
    ) -> None:
        super().__init__()
        protocol = reset_protocol(resets)
        if adapter.facts.needs_target_data and not isinstance(protocol, Never):
            raise InputError(
                f"{type(adapter).__name__} sees the whole stream before it predicts: use resets='continual', not "
                f"{protocol.label}, or its online mode"
            )
        self.model = model
        self.adapter = adapter.to(device_of(model))
        adapter.prepare(model)
        adapter.reset()
        if source is not None:
            twice = adapter.facts.needs_source_data and adapter.facts.needs_source_labels
            batches = list(source) if twice else source
            show_source(adapter, model, lambda: batches)
        self._source = SourceSnapshot(model)
        self.optimizer = optimizer(adapter.trainable(model)) if adapter.facts.needs_gradients else None
        self.updater = TorchUpdater(self.optimizer)
        self._fresh_optimizer = self.updater.snapshot()
        self.protocol = protocol.to(device_of(model))
        self.protocol.prepare(self._adaptation())
        self.protocol.reset()
        self.last: AdapterOutput | None = None
        self.resets = 0
        self._domain = 0

    def forward(self, x: Tensor) -> Tensor:
        """Predict and adapt.

        Args:
            x: Images, shape ``(B, ...)``, ``B >= 1``, floating point. Samples with NaN or infinite pixels are
                predicted with those pixels at zero, flagged in ``last.finite``, and never learnt from.

        Returns:
            Logits, shape ``(B, C)``, float32, detached; from before or after the update, as the method says.

        Raises:
            InputError: If the batch is too small for the method, or the model does not return ``(B, C)`` logits.
        """
        with torch.inference_mode(False):
            images = x.clone() if x.is_inference() else x
            domains = torch.full((len(x),), self._domain)
            self.last = self.protocol(self._adaptation(), images, domains)
        self.resets += self.last.reset is not None
        return self.last.logits

    def new_domain(self) -> None:
        """Say that the next batch begins a new domain; only a protocol that goes by domains takes notice."""
        self._domain += 1

    @torch.inference_mode(False)
    def observe_target(self, batches: Iterable[Any]) -> None:
        """Show the target images to a transductive method before it predicts them; others have nothing to learn here.

        Args:
            batches: An iterable of batches, as ``source`` of the constructor. Labels are not read.
        """
        self.adapter.observe_target(self.model, source_images(batches, self.model), self.updater)

    def reset(self) -> None:
        """Go back to the source: weights, buffers, optimiser, method and protocol state, bit for bit."""
        with torch.inference_mode(False):
            self._adaptation().restore()
            self.protocol.reset()
        self.last, self._domain = None, 0

    def train(self, mode: bool = True) -> "OnlineModel":
        """Keep the modes that the method set, whatever is asked: they are part of the method."""
        super().train(mode)
        self.adapter.prepare(self.model)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "OnlineModel":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._source.values = {name: fn(tensor) for name, tensor in self._source.values.items()}
        for parameter, state in self.optimizer.state.items() if self.optimizer is not None else ():
            for name, value in state.items():
                # Step counters stay where the optimiser wants them, on the CPU.
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    state[name] = fn(value)
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        *args: Any,  # noqa: ANN401  torch's own
    ) -> None:
        """Refuse another network's or method's state before any of it is taken over."""
        if strict:
            self._check_state(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *args)

    def _check_state(self, state_dict: dict[str, Any], prefix: str) -> None:
        remedy = "build the OnlineModel with the network, method and protocol that the state is of"
        own = {prefix + name: value for name, value in self.state_dict().items()}
        model = f"{prefix}model."
        odd = own.keys() ^ {name for name in state_dict if name.startswith(prefix)}
        if odd:
            first = min(odd, key=lambda name: (not name.startswith(model), name))
            where = "the state lacks" if first in own else "only the state has"
            raise InputError(f"of {len(odd)} names that do not fit the first is {first!r}, which {where}: {remedy}")
        for name, value in own.items():
            if name.startswith(model) and value.shape != state_dict[name].shape:
                shapes = f"{tuple(state_dict[name].shape)} in the state and {tuple(value.shape)} here"
                raise InputError(f"{name!r} is {shapes}: {remedy}")

    def get_extra_state(self) -> dict[str, Any]:
        """Optimiser state and source values, tensors and plain types only."""
        optimizer = self.optimizer.state_dict() if self.optimizer is not None else None
        source = self._source.values
        return {"optimizer": optimizer, "source": source, "resets": self.resets, "domain": self._domain}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over optimiser state and source values."""
        self.updater.restore(state["optimizer"])
        self._source.values = {name: tensor.clone() for name, tensor in state["source"].items()}
        self.resets, self._domain = state["resets"], state["domain"]

    def _adaptation(self) -> Adaptation:
        return Adaptation(self.model, self.adapter, self.updater, self._source, self._fresh_optimizer)


def online(
    model: nn.Module,
    adapter: str | Adapter = "sar",
    *,
    optimizer: str | Callable[..., Optimizer] = "sgd",
    source: Iterable[Any] | None = None,
    resets: str | ResetProtocol = "continual",
    **arguments: Any,  # noqa: ANN401  forwarded by name
) -> OnlineModel:
    """Make a classifier adapt while it predicts.

    >>> import timm, torch, tta
    >>> model = tta.online(timm.create_model("test_vit", num_classes=10), "sar", lr=1e-3)
    >>> model(torch.rand(4, 3, 160, 160)).shape
    torch.Size([4, 10])

    Args:
        model: Any classifier that maps ``(B, ...)`` to logits ``(B, C)``; adapted in place.
        adapter: A name of :func:`tta.list_adapters`, or an :class:`~tta.adapters.Adapter`.
        optimizer: ``"sgd"`` (lr 2.5e-4, momentum 0.9), ``"adam"`` or ``"adamw"`` (lr 1e-3), or a callable from
            parameters to an optimiser. Not used by methods that take no step.
        source: Source images for methods that must see some; see :class:`OnlineModel`.
        resets: When to go back to the source, such as ``tta.resets.Periodic(1000)``; see :class:`OnlineModel`.
        **arguments: Constructor arguments of the adapter (when given by name) and of the optimiser (``lr``,
            ``momentum``, ...), told apart by name.

    Returns:
        A module to call on batches, in stream order.

    Raises:
        InputError: For an unknown adapter, optimiser, protocol or argument, or a model without anything to adapt.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a {type(model).__name__}: give a torch.nn.Module that returns logits")
    make_optimizer = _optimizer(optimizer)
    if isinstance(adapter, str):
        cls = adapter_class(adapter)
        own = {name: arguments.pop(name) for name in inspect.signature(cls).parameters if name in arguments}
        adapter = cls(**own)
    if not isinstance(adapter, Adapter):
        raise InputError(f"adapter={adapter!r}: give a name of tta.list_adapters(), or an instance of an Adapter")
    _check_arguments(adapter, make_optimizer, arguments)
    return OnlineModel(model, adapter, partial(make_optimizer, **arguments), source, resets)


def _optimizer(optimizer: str | Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    if callable(optimizer):
        return optimizer
    if not isinstance(optimizer, str) or optimizer.lower() not in OPTIMIZERS:
        raise InputError(f"unknown optimizer {optimizer!r}: choose from {', '.join(OPTIMIZERS)}, or give a callable")
    return OPTIMIZERS[optimizer.lower()]


def _check_arguments(adapter: Adapter, optimizer: Callable[..., Optimizer], arguments: dict[str, Any]) -> None:
    known = inspect.signature(optimizer).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values()):
        return
    for name in arguments:
        if name not in known:
            name_of = type(adapter).__name__
            own = ", ".join(inspect.signature(type(adapter)).parameters) or "none"
            rest = ", ".join(list(known)[1:])
            raise InputError(f"unknown argument {name!r}: {name_of} takes {own}; the optimizer takes {rest}")
