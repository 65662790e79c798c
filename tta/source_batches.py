"""Batches of images, from loaders of any kind, for methods and estimates that see them before the stream."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tta.adapters.base import Adapter
from tta.errors import InputError
from tta.functional.pixels import finite_samples


def show_source(adapter: Adapter, model: nn.Module, load: Callable[[], Iterable[Any]]) -> None:
    """Show source images to a method that needs some, with labels if it needs those.

    Args:
        adapter: The method.
        model: The prepared classifier with source weights.
        load: Gives batches, as :func:`labelled_source_images` takes them; called once for images, once for labels.

    Raises:
        InputError: If labels are needed and a batch has none.
    """
    if adapter.facts.needs_source_data:
        adapter.observe_source(model, source_images(load(), model))
    if adapter.facts.needs_source_labels:
        adapter.observe_labelled_source(model, labelled_source_images(load(), model))


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters; the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def source_images(batches: Iterable[Any], model: nn.Module) -> Iterator[Tensor]:
    """Images of loader batches, on the model's device; images with NaN or infinite pixels are left out.

    Args:
        batches: Tensors, sequences whose first item is the images, or mappings with key ``image``.
        model: The model whose device is used.
    """
    device = device_of(model)
    for batch in batches:
        if isinstance(batch, Tensor):
            images = batch
        else:
            images = batch["image"] if isinstance(batch, Mapping) else batch[0]
        images = images.to(device)
        finite = finite_samples(images)
        if bool(finite.any()):
            yield images[finite]


def labelled_source_images(batches: Iterable[Any], model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels of loader batches, on the model's device; unlabelled and non-finite images are left out.

    Args:
        batches: Sequences whose first items are images and labels, or mappings with keys ``image`` and ``label``.
        model: The model whose device is used.

    Raises:
        InputError: If a batch has no labels.
    """
    device = device_of(model)
    for batch in batches:
        if isinstance(batch, Tensor) or (isinstance(batch, Mapping) and "label" not in batch) or len(batch) < 2:
            raise InputError("source= has batches without labels: give pairs (images, labels), or keys image and label")
        pair = (batch["image"], batch["label"]) if isinstance(batch, Mapping) else batch[:2]
        images, labels = (tensor.to(device) for tensor in pair)
        usable = finite_samples(images) & (labels >= 0)
        if bool(usable.any()):
            yield images[usable], labels[usable]
