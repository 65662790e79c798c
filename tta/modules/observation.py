"""What methods and estimates see of the source before the stream."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from tta.adapters.base import Adapter
from tta.errors import InputError
from tta.modules.estimation import StreamEstimates
from tta.resets import AdaptedClassifier
from tta.source_batches import show_source


def show_to_method(adapter: Adapter, model: nn.Module, datamodule: Any) -> None:  # noqa: ANN401  as Lightning types it
    """Show source images to a method that needs some, with labels if it needs those.

    Args:
        adapter: The method.
        model: The prepared classifier with source weights.
        datamodule: Its ``source_dataloader()`` gives mappings with ``image`` and ``label``.

    Raises:
        InputError: If the method needs some and the datamodule has none.
    """
    facts = adapter.facts
    if not (facts.needs_source_data or facts.needs_source_labels):
        return
    load = _loader(datamodule, type(adapter).__name__, "source images", "turn that part off (EATA: fisher_alpha=0)")
    show_source(adapter, model, load)


def show_to_estimates(
    estimates: StreamEstimates,
    predictor: AdaptedClassifier,
    datamodule: Any,  # noqa: ANN401
) -> None:
    """Show labelled source images to the estimates that need some.

    Args:
        estimates: The estimates.
        predictor: The classifier with source weights as it predicts.
        datamodule: Its ``source_dataloader()`` gives mappings with ``image`` and ``label``.

    Raises:
        InputError: If an estimate needs some and the datamodule has none.
    """
    if names := estimates.needs_source_labels:
        load = _loader(datamodule, ", ".join(names), "labelled source images", "leave that estimate out")
        estimates.observe_source(predictor, load)


def _loader(datamodule: Any, who: str, what: str, remedy: str) -> Callable[[], Iterable[Any]]:  # noqa: ANN401
    load: Callable[[], Iterable[Any]] | None = getattr(datamodule, "source_dataloader", None)
    if load is None:
        raise InputError(
            f"{who} must see {what}, and {type(datamodule).__name__} has no source_dataloader(): add one, or {remedy}"
        )
    return load
