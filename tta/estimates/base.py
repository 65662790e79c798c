"""What an estimate of accuracy without labels is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tta.growing_buffers import GrowingBuffers


class AccuracyEstimate(GrowingBuffers, ABC):
    """Estimates, from images and logits alone, how accurate a classifier is on what it sees now.

    A subclass writes :meth:`scores`. State lives in buffers, so that ``state_dict``, ``.to()`` and resuming just work;
    random draws come from generators seeded by an argument.

    Attributes:
        name: What it is called in figures and files.
        paper: Address of the paper.
        needs_source_labels: It must see labelled source images first (:meth:`observe_source`).
        forwards: Forward passes of the model per sample that it takes beyond that of the prediction.
    """

    name: str
    paper: str = ""
    needs_source_labels: bool = False
    forwards: int = 0

    def observe_source(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """See labelled source images once, before the stream. Estimates that need it override this.

        Args:
            model: The classifier with source weights, in the modes in which it predicts.
            batches: Images ``(B, ...)``, all finite, with their classes ``(B,)``, int64, on the model's device. They
                should not be images that the model was trained on.
        """

    @abstractmethod
    def scores(self, model: nn.Module, x: Tensor, logits: Tensor) -> Tensor:
        """How probable it is that each prediction is right. Changes nothing in the model.

        Args:
            model: The classifier, in the modes in which it predicts.
            x: Images, shape ``(B, ...)``, all finite.
            logits: What it predicted for them, shape ``(B, C)``, float32.

        Returns:
            Shape ``(B,)``, float32, in ``[0, 1]``; their mean estimates the accuracy on the batch.
        """

    def update(self, model: nn.Module, x: Tensor, logits: Tensor) -> Tensor:
        """Take in a batch and estimate the accuracy now.

        Args:
            model: The classifier, in the modes in which it predicts.
            x: Images, shape ``(B, ...)``, all finite.
            logits: What it predicted for them, shape ``(B, C)``, float32.

        Returns:
            Scalar in ``[0, 1]``, float32; NaN while unknown. The mean of :meth:`scores` unless a subclass smooths it.
        """
        return self.scores(model, x, logits).mean()

    def reset(self) -> None:
        """Forget the stream, not the source. Estimates with state override this."""


@torch.no_grad()
def predict_untouched(model: nn.Module, x: Tensor, values: dict[str, Tensor] | None = None) -> Tensor:
    """Logits of a model in its present modes; running statistics that the pass updates are those of a copy.

    Args:
        model: The classifier.
        x: Images, shape ``(B, ...)``.
        values: Parameters and buffers to use in place of the model's own, by name; they are not changed either.

    Returns:
        Shape ``(B, C)``, float32.
    """
    own = {**dict(model.named_buffers()), **(values or {})}
    logits: Tensor = functional_call(model, {name: value.clone() for name, value in own.items()}, (x,))
    return logits.float()


def predicted(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits ``(B, C)``, float32, and classes ``(B,)`` of labelled batches."""
    for images, labels in batches:
        yield predict_untouched(model, images), labels
