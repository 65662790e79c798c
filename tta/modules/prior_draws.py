"""Features of a frozen classifier, drawn with one class prior after the other."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tta.adapters.head import features_of
from tta.errors import InputError
from tta.functional.normalization import batch_norm_layers, batch_statistics_only
from tta.modules.checks import checked_forward


class Drawn(NamedTuple):
    """Features that were drawn with a prior.

    Attributes:
        features: Float32, shape ``(N, D)``.
        labels: Int64, shape ``(N,)``.
        prior: Float32, shape ``(C,)``.
    """

    features: Tensor
    labels: Tensor
    prior: Tensor


@torch.no_grad()
def draw_with_priors(
    backbone: nn.Module,
    head: nn.Linear,
    loader: Iterable[Mapping[str, Tensor]],
    priors: Sequence[Tensor],
    seed: int,
    image_batch: int | None = None,
) -> list[Drawn]:
    """Draw as many features as there are images, with replacement, for each prior.

    Args:
        backbone: The classifier, in eval mode.
        head: Its head, of ``C`` outputs.
        loader: Batches with ``image`` and ``label``.
        priors: Class priors, each of shape ``(C,)``, on the classifier's device.
        seed: Non-negative seed of the draws.
        image_batch: Make features under the statistics of each batch of so many drawn images, which are held in memory;
            under those of the classifier, in one pass over the images, if ``None``. An incomplete last batch is left
            out unless it is the only one.

    Returns:
        The draws, on the classifier's device.

    Raises:
        InputError: If a class has no image.
    """
    device, generator = priors[0].device, torch.Generator().manual_seed(seed)
    kept, labels = [], []
    for batch in loader:
        labels.append(batch["label"])
        kept.append(batch["image"] if image_batch is not None else _features(backbone, head, batch["image"], device))
    every, every_label = torch.cat(kept), torch.cat(labels)
    counts = torch.bincount(every_label, minlength=head.out_features)
    if not bool((counts > 0).all()):
        missing = int(torch.nonzero(counts == 0)[0])
        raise InputError(f"class {missing} has no image: training and held-out images must show every class")
    size = len(every)
    if image_batch is not None and size > image_batch:
        size -= size % image_batch
    draws = []
    for prior in priors:
        chances = (prior.cpu() / counts)[every_label]
        rows = torch.multinomial(chances, size, replacement=True, generator=generator)
        if image_batch is None:
            features = every[rows]
        else:
            batches = (every[part] for part in torch.split(rows, image_batch))
            features = _under_batch_statistics(backbone, head, batches, device)
        draws.append(Drawn(features, every_label[rows].to(device), prior))
    return draws


def _features(backbone: nn.Module, head: nn.Linear, images: Tensor, device: torch.device) -> Tensor:
    with features_of(head) as features:
        checked_forward(backbone, images.to(device), head.out_features)
    return features[0].float()


def _under_batch_statistics(
    backbone: nn.Module, head: nn.Linear, batches: Iterable[Tensor], device: torch.device
) -> Tensor:
    tracked = [(layer, layer.track_running_stats) for _, layer in batch_norm_layers(backbone)]
    batch_statistics_only(backbone)
    features = torch.cat([_features(backbone, head, images, device) for images in batches])
    for layer, before in tracked:
        layer.track_running_stats = before
    backbone.eval()
    return features
