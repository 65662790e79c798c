"""Random views of a batch, made on its device."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import v2

from tta.seeds import derived_seed

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


class CoTTAViews(v2.Compose):  # type: ignore[misc]
    """The published views of CoTTA, which RoTTA and others took over: colours, a small rigid move, blur, flip, noise.

    Brightness, contrast, saturation, hue and gamma in random order; then, over a border of repeated edge pixels as wide
    as half the image, a rotation by up to 15 degrees, a shift by up to an eighth of the image and a scale of 0.9 to
    1.1; blur, flip, and Gaussian noise of standard deviation 0.005. Works on images of any size, which stays.
    """

    def __init__(self) -> None:
        super().__init__(
            [
                ColoursAndGamma(brightness=0.4, contrast=0.3, saturation=0.5, hue=0.06, gamma=0.3),
                MovedOverEdges(degrees=15.0, shift=1 / 16, scale=(0.9, 1.1), blur=(0.001, 0.5)),
                v2.RandomHorizontalFlip(),
                v2.GaussianNoise(sigma=0.005),
            ]
        )


class ROIDViews(v2.Compose):  # type: ignore[misc]
    """The published views of ROID and CMF: those of CoTTA without blur and noise, over a mirrored border."""

    def __init__(self) -> None:
        super().__init__(
            [
                ColoursAndGamma(brightness=0.4, contrast=0.3, saturation=0.5, hue=0.06, gamma=0.3),
                MovedOverEdges(degrees=15.0, shift=1 / 16, scale=(0.9, 1.1), blur=None, padding="reflect"),
                v2.RandomHorizontalFlip(),
            ]
        )


class ColoursAndGamma(torch.nn.Module):
    """Change brightness, contrast, saturation, hue and gamma in random order.

    Factors are uniform in ``[1 - s, 1 + s]`` with ``s`` the argument of that name, the shift of the hue in ``[-s, s]``.

    Args:
        brightness: Strength.
        contrast: Strength.
        saturation: Strength.
        hue: Strength, at most 0.5.
        gamma: Strength, below 1.
    """

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float, gamma: float) -> None:
        super().__init__()
        self.centers = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0])
        self.strengths = torch.tensor([brightness, contrast, saturation, hue, gamma])

    def forward(self, image: Tensor) -> Tensor:
        """Changed colours of ``(C, H, W)`` in ``[0, 1]``, of the same shape."""
        adjust = v2.functional
        changes = (
            adjust.adjust_brightness,
            adjust.adjust_contrast,
            adjust.adjust_saturation,
            adjust.adjust_hue,
            # Powers have infinite slopes at zero.
            lambda image, factor: adjust.adjust_gamma(image.clamp(1e-8, 1.0), factor),
        )
        order = torch.randperm(len(changes)).tolist()
        factors = (self.centers + self.strengths * (2.0 * torch.rand(len(changes)) - 1.0)).tolist()
        image = image.clamp(0.0, 1.0)
        for number in order:
            image = changes[number](image, factors[number])
        return image


class MovedOverEdges(torch.nn.Module):
    """Rotate, shift, scale and blur an image that goes on beyond its edges, and cut its own size out.

    Args:
        degrees: Largest rotation.
        shift: Largest shift, as a share of the widened image, which is twice as large.
        scale: Smallest and largest scale.
        blur: Smallest and largest standard deviation in pixels, of a kernel of 5 x 5; ``None`` does not blur.
        padding: What lies beyond the edges: the ``edge`` pixels, repeated, or a ``reflect``-ed image.
    """

    def __init__(
        self,
        degrees: float,
        shift: float,
        scale: tuple[float, float],
        blur: tuple[float, float] | None,
        padding: Literal["edge", "reflect"] = "edge",
    ) -> None:
        super().__init__()
        bilinear = v2.InterpolationMode.BILINEAR
        self.move = v2.RandomAffine(degrees, translate=(shift, shift), scale=scale, interpolation=bilinear)
        self.soften = torch.nn.Identity() if blur is None else v2.GaussianBlur(kernel_size=5, sigma=blur)
        self.padding = padding

    def forward(self, image: Tensor) -> Tensor:
        """The moved image of ``(C, H, W)``, of the same shape."""
        height, width = image.shape[-2:]
        wide = v2.functional.pad(image, [width // 2, height // 2], padding_mode=self.padding)
        moved: Tensor = v2.functional.center_crop(self.soften(self.move(wide)), [height, width])
        return moved


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
    state = derived_seed(*seed)
    # Blurring is a convolution, which autocast would round to half precision.
    with torch.random.fork_rng(devices), torch.autocast(x.device.type, enabled=False):
        torch.default_generator.manual_seed(state)
        for device in devices:  # which need not be the current one
            torch.cuda.default_generators[device.index].manual_seed(state)
        return [torch.stack([transform(image) for image in x]).clamp(0.0, 1.0) for _ in range(count)]
