"""What an estimate of accuracy without labels is."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class AccuracyEstimate(nn.Module, ABC):
    """Estimates, from images and logits alone, how accurate a classifier is on what it sees now.

    A subclass writes :meth:`scores`. State lives in buffers, so that ``state_dict``, ``.to()`` and resuming just work;
    random draws come from generators seeded by an argument.

    Attributes:
        needs_source_labels: It must see source predictions with labels first (:meth:`observe_source`).
        forwards: Forward passes of the model per sample that it takes beyond that of the prediction.
    """

    needs_source_labels: bool = False
    forwards: int = 0

    def observe_source(self, logits: Tensor, labels: Tensor) -> None:
        """See predictions of held-out source images with their labels, once, before the stream.

        Args:
            logits: Of the source model, shape ``(N, C)``, float32.
            labels: Their classes, shape ``(N,)``, int64.
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
