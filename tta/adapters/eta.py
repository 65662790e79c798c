"""ETA: EATA without the anchor."""

from tta.adapters.base import Facts
from tta.adapters.reliable_entropy import ReliableEntropy
from tta.adapters.select import Select


class ETA(ReliableEntropy):
    r"""Entropy minimisation on samples that are reliable and not redundant.

    :class:`~tta.adapters.EATA` without the Fisher anchor, and so without source images: a sample is *reliable* when
    its entropy is below ``margin * ln C`` and *not redundant* when the cosine between its prediction and the moving
    average of selected predictions is below ``redundancy`` in absolute value. Selected samples are weighted by
    :math:`\exp(E_0 - H)`.

    Returned logits are those from before the update. With nothing selected (also on constant logits, whose entropy is
    maximal) no step is taken, not even on momentum. A batch of one is a batch that selects one sample or none.
    Identical samples are selected together or not at all.

    Args:
        margin: Entropy margin as a share of ``ln C``, above 0.
        redundancy: Cosine threshold :math:`d`, above 0: 0.05 on ImageNet, 0.4 on CIFAR-10, 0.1 on CIFAR-100.
        select: Layers whose parameters adapt.

    Raises:
        InputError: For a value out of range.

    References:
        Efficient Test-Time Model Adaptation without Forgetting, ICML 2022, eq. (2)-(6),
        https://arxiv.org/abs/2204.02610, where it is an ablation. Differs from the authors' code as EATA does; the
        re-implementation in test-time-adaptation (commit 8b2ed63) agrees.
    """

    facts = Facts(
        needs_gradients=True,
        steps_per_batch=1,
        backwards=1,
        trains="affine parameters of normalisation layers",
        paper="https://arxiv.org/abs/2204.02610",
    )

    def __init__(
        self,
        margin: float = 0.4,
        redundancy: float = 0.05,
        select: Select = Select(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(margin, redundancy, select)
