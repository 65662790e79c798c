"""LAME: adjust the predictions of a batch to each other, not the network."""

from typing import Literal

import torch
from torch import Tensor, nn

from tta.adapters.base import Adapter, AdapterOutput, Facts, Updater
from tta.adapters.head import logits_and_features
from tta.errors import InputError
from tta.functional.laplacian import knn_affinity, laplacian_adjusted, linear_affinity, rbf_affinity

AFFINITIES = ("rbf", "knn", "linear")


class LAME(Adapter):
    r"""Draw the predictions of a batch towards those of its neighbours in feature space. Nothing is learnt.

    The network predicts in eval mode, with its source statistics. The assignments of the batch are then iterated,
    :math:`y_i \leftarrow \mathrm{softmax}(\ln p_i + \sum_j w_{ij} y_j)`, with affinities :math:`w` of the features that
    enter the head, at most 100 times (see :func:`tta.functional.laplacian_adjusted`). No batch leaves a trace in the
    next.

    Made for streams where neighbouring samples share a class (video, sorted labels). On a balanced and shuffled stream
    it hands whole batches to few classes: the popular re-implementation reports an error of 98 % on CIFAR-100-C there.
    Run it beside the source model before relying on it.

    Returned are the **logarithms of the assignments**, so that ``softmax`` gives the assignments back; they are finite.
    The published code returns the assignments themselves, which a softmax, an entropy or a calibration error would
    take for logits. Constant logits come back as :math:`-\ln C`.

    A batch of one, and one of identical samples, is predicted as the source model does where the width of ``rbf`` would
    be 0 (``knn``: a batch of one); the published code gives NaN. Samples whose logits or features are not finite
    keep what the network said and are nobody's neighbours. The iteration amplifies rounding where neighbours or classes
    are nearly tied, most of all under bf16.

    Args:
        affinity: ``rbf``: Gaussian, of a width given by distances to the ``neighbours``-th nearest sample, the sample
            itself counted as the first. ``knn``: 1 for the nearest samples without the sample itself, else 0.
            ``linear``: cosine.
        neighbours: For ``rbf`` at least 2, for ``knn`` at least 1; ``linear`` does not read it. Capped by the batch.
        symmetric: Average the affinities with their transpose. Changes ``knn`` only: the others are symmetric.

    Raises:
        InputError: For a value out of range; if the classifier has no linear head that takes one vector per image.

    References:
        Parameter-free Online Test-time Adaptation, CVPR 2022, https://arxiv.org/abs/2201.05718. Differs
        from the authors' code (and the popular re-implementation, the same line by line): logarithms are returned; no
        NaN at width 0; a sample is never its own ``knn`` neighbour, where theirs drops the nearest entry even
        if that is a duplicate. Theirs lists ``neighbours=1`` for ``rbf`` among the values to try: the width is then
        always 0. Theirs has a ``sigma`` that nothing reads.
    """

    facts = Facts(paper="https://arxiv.org/abs/2201.05718")

    def __init__(
        self,
        affinity: Literal["rbf", "knn", "linear"] = "rbf",
        neighbours: int = 5,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        if affinity not in AFFINITIES:
            raise InputError(f"affinity={affinity!r}: choose from {', '.join(AFFINITIES)}")
        fewest = 2 if affinity == "rbf" else 1
        if neighbours < fewest:
            raise InputError(
                f"neighbours={neighbours}: need neighbours >= {fewest} with affinity {affinity}"
                f"{', which counts the sample itself as the first' if affinity == 'rbf' else ''}"
            )
        self.affinity = affinity
        self.neighbours = neighbours
        self.symmetric = symmetric

    def prepare(self, model: nn.Module) -> None:
        """Freeze everything, eval mode."""
        model.eval()
        model.requires_grad_(False)

    def adapt(self, model: nn.Module, x: Tensor, updater: Updater) -> AdapterOutput:
        """Predict and adjust."""
        return AdapterOutput(self.predict(model, x))

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """Logarithms of the assignments of this batch, shape ``(B, C)``, float32. Changes nothing."""
        with torch.no_grad():
            logits, features = logits_and_features(model, x.nan_to_num(0.0, 0.0, 0.0))
            with torch.autocast(logits.device.type, enabled=False):
                probabilities = logits.softmax(dim=1)
                usable = torch.isfinite(probabilities).all(dim=1) & torch.isfinite(features).all(dim=1)
                output = logits.log_softmax(dim=1)
                if bool(usable.any()):
                    output[usable] = laplacian_adjusted(probabilities[usable], self._affinity(features[usable]))
        return output

    def _affinity(self, features: Tensor) -> Tensor:
        if self.affinity == "linear":
            return linear_affinity(features)
        kernel = rbf_affinity if self.affinity == "rbf" else knn_affinity
        affinity = kernel(features, self.neighbours)
        return 0.5 * (affinity + affinity.T) if self.symmetric else affinity
