"""Random views of a batch, made on its device."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

Transform = torch.nn.Module | Callable[[Tensor], Tensor]
"""From an image ``(C, H, W)`` in ``[0, 1]`` to one of a fixed size; draws from torch's global generator."""


class SmallImageViews(v2.Compose):  # type: ignore[misc]
    """The published views of CIFAR images: crop, colour jitter, grey, blur, flip.

    Works on images of any size from 5 pixels on; the crop has the image's own. The blur has a kernel of 9 x 9 pixels,
    where the authors' is Pillow's.

    Args:
        padding: Pixels of black border from which the crop is cut, 4 of 32 as published.
    """

    def __init__(self, padding: int = 4) -> None:
        super().__init__([PaddedCrop(padding), *_colours(blur=0.2), v2.RandomHorizontalFlip()])


class ImageNetViews(v2.Compose):  # type: ignore[misc]
    """The published views of ImageNet and Places images: scaled crop, colour jitter, grey, blur, flip.

    Args:
        size: Side of the views in pixels.
        smallest: Smallest share of the image that a crop shows, in ``(0, 1]``; 0.08 is published for iNaturalist.
    """

    def __init__(self, size: int = 224, smallest: float = 0.2) -> None:
        crop = v2.RandomResizedCrop(size, scale=(smallest, 1.0), antialias=True)
        super().__init__([crop, *_colours(blur=0.5), v2.RandomHorizontalFlip()])


class PaddedCrop(torch.nn.Module):
    """Cut an image's own size out of the image with a black border.

    Args:
        padding: Width of the border in pixels.
    """

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, image: Tensor) -> Tensor:
        """A crop of ``(C, H, W)``, of the same shape."""
        height, width = image.shape[-2:]
        top, left = torch.randint(2 * self.padding + 1, (2,)).tolist()
        padded: Tensor = v2.functional.pad(image, [self.padding])
        return padded[..., top : top + height, left : left + width]


def _colours(blur: float) -> list[torch.nn.Module]:
    jitter = v2.ColorJitter(0.4, 0.4, 0.4, 0.1)
    soften = v2.GaussianBlur(kernel_size=9, sigma=(0.1, 2.0))
    return [v2.RandomApply([jitter], p=0.8), v2.RandomGrayscale(p=0.2), v2.RandomApply([soften], p=blur)]


def random_views(x: Tensor, transform: Transform, seed: tuple[int, ...], count: int = 2) -> list[Tensor]:
    """Show every image of a batch several times, each time transformed anew.

    What is drawn depends on the seed, the size of the batch and the image's position in it. The global generators stay
    as they were; a transform that draws from anything but torch's has to be seeded by itself.

    Args:
        x: Images, shape ``(B, C, H, W)``, in ``[0, 1]``.
        transform: Applied to each image by itself, on the device of ``x``.
        seed: Non-negative numbers, such as a seed and a step.
        count: Number of views.

    Returns:
        ``count`` tensors of shape ``(B, C, h, w)``, in ``[0, 1]``.
    """
    devices = [x.device] if x.device.type == "cuda" else []
    state = int(np.random.SeedSequence(seed).generate_state(1)[0])
    # Blurring is a convolution, which autocast would round to half precision.
    with torch.random.fork_rng(devices), torch.autocast(x.device.type, enabled=False):
        torch.default_generator.manual_seed(state)
        for device in devices:  # which need not be the current one
            torch.cuda.default_generators[device.index].manual_seed(state)
        return [torch.stack([transform(image) for image in x]).clamp(0.0, 1.0) for _ in range(count)]
