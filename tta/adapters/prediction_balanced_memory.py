"""The memory of NOTE: prediction-balanced reservoir sampling."""

import torch
from torch import Tensor

from tta.errors import InputError
from tta.growing_buffers import GrowingBuffers


class PredictionBalancedReservoir(GrowingBuffers):
    """A memory of images in which predicted classes have equal shares, and each class is a fair sample of its past.

    While there is room, every image is taken. Then an image of a class that holds fewer places than the largest does
    takes the place of a random image of a largest class. An image of a largest class takes the place of one of its own
    class with probability ``m / n``: places of the class over images of it seen so far, the new one included
    (reservoir sampling). State lives in buffers; what is drawn depends on the generator that is passed alone.

    Args:
        capacity: Most images it holds, at least 1.

    References:
        NOTE: Robust Continual Test-time Adaptation Against Temporal Correlation, NeurIPS 2022, algorithm 1,
        https://arxiv.org/abs/2208.05117.
    """

    growing = ("images", "classes")
    images: Tensor
    classes: Tensor
    seen: Tensor

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.register_buffer("images", torch.empty(0))
        self.register_buffer("classes", torch.empty(0, dtype=torch.int64))
        self.register_buffer("seen", torch.empty(0, dtype=torch.int64))

    def __len__(self) -> int:
        """Images held."""
        return len(self.classes)

    def reset(self) -> None:
        """Empty it."""
        self.images = self.images.new_empty(0)
        self.classes = self.classes.new_empty(0)
        self.seen = self.seen.new_empty(0)

    def counts(self) -> Tensor:
        """Images held per class, shape ``(C,)``; empty before the first."""
        return torch.bincount(self.classes, minlength=len(self.seen))

    def check(self, images: Tensor) -> None:
        """Whether these could stand beside what is stored.

        Args:
            images: Shape ``(B, C, H, W)``.

        Raises:
            InputError: If they are of another shape.
        """
        if len(self) and self.images.shape[1:] != images.shape[1:]:
            raise InputError(
                f"the memory holds images of shape {tuple(self.images.shape[1:])} and got {tuple(images.shape[1:])}: "
                "keep one size within a stream, or reset the method first"
            )

    def add(self, image: Tensor, label: int, num_classes: int, generator: torch.Generator) -> None:
        """Offer an image.

        Args:
            image: Shape ``(C, H, W)``.
            label: Its predicted class, in ``[0, num_classes)``.
            num_classes: Number of classes.
            generator: Source of random numbers, on the CPU.
        """
        if not len(self.seen):
            self.seen = self.seen.new_zeros(num_classes)
        self.seen[label] += 1
        if len(self) < self.capacity:
            taken = self.classes.new_tensor([label])
            self.classes = torch.cat([self.classes, taken])
            self.images = torch.cat([self.images, image[None]]) if len(self.images) else image[None].clone()
            return
        place = self._place_for(label, generator)
        if place is not None:
            self.images[place], self.classes[place] = image, label

    def _place_for(self, label: int, generator: torch.Generator) -> int | None:
        counts = self.counts()
        largest = (counts == counts.max()).nonzero().flatten().tolist()
        if label not in largest:
            giving = largest[_draw(len(largest), generator)]
        elif float(torch.rand((), generator=generator)) <= float(counts[label]) / float(self.seen[label]):
            giving = label
        else:
            return None
        places = (self.classes == giving).nonzero().flatten().tolist()
        return int(places[_draw(len(places), generator)])


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))
