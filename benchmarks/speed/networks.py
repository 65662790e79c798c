"""Networks with random weights, random images, and margins that make a chosen share of the images reliable."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tta.adapters import Adapter
from tta.functional.entropy import softmax_entropy

CANDIDATES = 4
"""Images drawn for each one that is taken."""

POOL = 10
"""Images gone through one by one at batch size one, so that a share of them can be reliable."""

SPREAD = 2.5
"""Standard deviation of the logits of an image over classes and images, after :func:`spread_predictions`."""

RESIDUAL_GAIN = 0.25
"""Weight of the last normalisation layer of a residual branch in a ResNet. timm starts with 0, which keeps gradients
away from the layers inside; with 1 they get so large that no sample is still reliable after SAR's move."""


@dataclass(frozen=True)
class Network:
    """A timm network.

    Attributes:
        name: Name in timm.
        size: Height and width of the images, pixels.
        work: Rough cost of one forward pass relative to ``vit_tiny_patch16_224`` at 224 pixels; for the time left.
        classes: Number of classes.
        arguments: Further arguments of ``timm.create_model``.
    """

    name: str
    size: int
    work: float
    classes: int = 10
    arguments: dict[str, Any] = field(default_factory=dict)


def _small_vit(depth: int = 12, classes: int = 10) -> Network:
    arguments = {"img_size": 64, "depth": depth}
    return Network("vit_tiny_patch16_224", 64, 0.08 * depth / 12, classes, arguments)


NETWORKS = {
    "resnet18": Network("resnet18", 64, 0.2),
    "resnet50_gn": Network("resnet50_gn", 96, 0.8),
    "vit_tiny": Network("vit_tiny_patch16_224", 224, 1.0),
    "vit_small": Network("vit_small_patch16_224", 96, 0.7, arguments={"img_size": 96}),
}
DEPTHS = (3, 6, 12, 24)
CLASSES = (10, 100, 1000)
SMALL = "small_vit"
SCALING_NETWORKS = {
    SMALL: _small_vit(),
    **{f"{SMALL}_depth_{depth}": _small_vit(depth) for depth in DEPTHS},
    **{f"{SMALL}_classes_{classes}": _small_vit(classes=classes) for classes in CLASSES},
}
CHECKED_NETWORKS = {
    "test_vit": Network("test_vit", 160, 0.01),
    "test_resnet": Network("test_resnet", 96, 0.01),
}


def images(network: Network, count: int, seed: int, device: torch.device) -> Tensor:
    """Random images that differ enough to be told apart: coarse patterns under fine noise, each of its own contrast.

    Returns:
        Shape ``(count, 3, size, size)``, float32.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 5, 5, generator=generator)
    pattern = F.interpolate(coarse, size=network.size, mode="bilinear")
    contrast = 0.3 + torch.rand(count, 1, 1, 1, generator=generator)
    noise = 0.3 * torch.randn(count, 3, network.size, network.size, generator=generator)
    return (contrast * (pattern + noise)).to(device)


def build(network: Network, adapter: Adapter, batches: Sequence[Tensor]) -> nn.Module:
    """A network with random weights from a fixed seed, prepared for an adapter, its predictions spread."""
    torch.manual_seed(0)
    model = timm.create_model(network.name, num_classes=network.classes, **network.arguments).to(batches[0].device)
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm2d, nn.GroupNorm)) and not layer.weight.any():
            nn.init.constant_(layer.weight, RESIDUAL_GAIN)
    adapter.prepare(model)
    spread_predictions(model, batches)
    return model


@torch.no_grad()
def predictions(model: nn.Module, batches: Sequence[Tensor]) -> Tensor:
    """Logits of all batches in the model's present modes, shape ``(N, C)``, float32."""
    return torch.cat([model(x).float() for x in batches])


@torch.no_grad()
def spread_predictions(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Scale and shift the head so that logits differ: with random weights all entropies would be nearly the same."""
    logits = predictions(model, batches)
    head = model.get_classifier()
    mean = logits.mean(dim=0)
    scale = SPREAD / (logits - mean).std()
    head.weight.mul_(scale)
    head.bias.sub_(mean).mul_(scale)


def candidates(network: Network, batch: int, device: torch.device) -> list[Tensor]:
    """Batches to choose from; of single images there are :data:`POOL` times as many."""
    count = CANDIDATES * (POOL if batch == 1 else batch)
    return list(images(network, count, 0, device).split(batch))


def choose(model: nn.Module, batches: Sequence[Tensor], share: float) -> list[Tensor]:
    """Of the candidates those with the lowest entropies, a share, and those with the highest, in mixed order.

    In between lies a gap, so that most samples are still reliable after SAR's move: if none were, SAR's second pass
    would have nothing to learn, and leaving it out would look like speed.

    Returns:
        One batch, or :data:`POOL` batches of one.
    """
    size = len(batches[0])
    every = torch.cat(list(batches))
    count = len(every) // CANDIDATES
    order = softmax_entropy(predictions(model, batches)).argsort()
    low = _reliable_count(count, share)
    taken = torch.cat([order[:low], order[len(order) - (count - low) :]])
    mixed = taken[torch.randperm(count, generator=torch.Generator().manual_seed(0)).to(taken.device)]
    return list(every[mixed].split(size))


def margin_for_share(model: nn.Module, batches: Sequence[Tensor], share: float) -> float:
    """Margin, as a share of ``ln C``, below which exactly ``round(share * N)`` of the ``N`` images lie, at least one.

    Midway between two neighbouring entropies of the prepared model.

    Raises:
        RuntimeError: If the two entropies are too close for rounding errors to keep them apart.
    """
    logits = predictions(model, batches)
    entropies = softmax_entropy(logits).double().sort().values.tolist()
    count = _reliable_count(len(entropies), share)
    below = entropies[count - 1]
    above = entropies[count] if count < len(entropies) else below + 1.0
    if above - below < 1e-5:
        raise RuntimeError(f"entropies {below} and {above} are too close to put a margin between them")
    return (below + above) / 2 / math.log(logits.shape[1])


def _reliable_count(images: int, share: float) -> int:
    return max(1, round(share * images))
