"""The handwritten digits that scikit-learn carries: 1797 images, ten classes, no download."""

from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.datasets import load_digits
from torchvision.transforms.v2 import functional as F

from datamodules.augmentations import small_affine
from datamodules.base import SourceDataModule
from datamodules.checks import check_at_least
from datamodules.corrupted_stream import CorruptedStream
from datamodules.corruptions.levels import DIGITS
from datamodules.datasets import TensorImages
from datamodules.samplers import stratified_split

SHARES = (0.5, 0.15, 0.35)
"""Shares of source training, held-out source and stream: disjoint, with equal class proportions."""

CLASS_NAMES = [str(digit) for digit in range(10)]


def check_digits(image_size: int, split_seed: int) -> None:
    """Refuse arguments that fit no digits.

    Args:
        image_size: Side in pixels, at least 8.
        split_seed: Non-negative.

    Raises:
        InputError: If one of them is out of range.
    """
    check_at_least(image_size, 8, "image_size", "the digits are 8 pixels wide")
    check_at_least(split_seed, 0, "split_seed", "use a non-negative number")


def digit_parts(image_size: int, split_seed: int) -> list[TensorImages]:
    """Read and split the digits.

    Args:
        image_size: Side in pixels to which the 8x8 originals are enlarged, bilinearly.
        split_seed: Non-negative seed of the split.

    Returns:
        The images for source training, the held-out ones and those of the stream, grey in three equal channels.
    """
    raw = load_digits()
    labels = raw.target.astype(np.int64)
    grey = torch.from_numpy(raw.images).float().unsqueeze(1) / 16
    images = F.resize(grey, [image_size, image_size], antialias=False).expand(-1, 3, -1, -1)
    return [TensorImages(images[part], labels[part]) for part in stratified_split(labels, SHARES, split_seed)]


class Digits(SourceDataModule):
    """Digits for source training: 50 % to train on, 15 % held out, 35 % to test on."""

    def __init__(
        self,
        image_size: int = 32,
        augment: bool = True,
        split_seed: int = 0,
        **options: Any,  # noqa: ANN401 - the base names and types them
    ) -> None:
        """Check the arguments; images are read in ``setup``.

        Args:
            image_size: Side in pixels, at least 8; the 8x8 originals are enlarged bilinearly, and repeated to
                3 channels.
            augment: Rotate, shift and scale the training images a little.
            split_seed: Non-negative seed of the split; the stream to adapt to must have the same.
            **options: Arguments of ``SourceDataModule`` and ``Loading``.

        Raises:
            InputError: If an argument is out of range.
        """
        super().__init__(**options)
        check_digits(image_size, split_seed)
        self.class_names = CLASS_NAMES
        self.image_size = image_size
        self.split_seed = split_seed
        self.augment = small_affine if augment else None

    def setup(self, stage: str | None = None) -> None:
        """Read and split the images.

        Args:
            stage: Ignored: all stages need the same.
        """
        self.train, self.heldout, self.test = digit_parts(self.image_size, self.split_seed)


class DigitsStream(CorruptedStream):
    """A stream of corrupted digits that source training has not seen."""

    default_domains: ClassVar[tuple[str, ...]] = tuple(DIGITS)
    default_levels: ClassVar[str] = "digits"

    def __init__(
        self,
        image_size: int = 32,
        split_seed: int = 0,
        **options: Any,  # noqa: ANN401 - the base names and types them
    ) -> None:
        """Check the arguments; images are read in ``setup``.

        Args:
            image_size: Side in pixels, at least 8.
            split_seed: Non-negative seed of the split; it must be the one of source training.
            **options: Arguments of ``CorruptedStream``, ``StreamDataModule`` and ``Loading``.

        Raises:
            InputError: If an argument is out of range.
        """
        super().__init__(**options)
        check_digits(image_size, split_seed)
        self.class_names = CLASS_NAMES
        self.image_size = image_size
        self.split_seed = split_seed

    def setup(self, stage: str | None = None) -> None:
        """Read and split the images.

        Args:
            stage: Ignored: all stages need the same.
        """
        self.source, self.heldout, self.stream = digit_parts(self.image_size, self.split_seed)
