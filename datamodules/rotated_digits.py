"""Handwritten digits turned by several angles: domains whose relation to each other is known."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from datamodules.augmentations import small_affine
from datamodules.checks import check_distinct, check_name
from datamodules.datasets import ImageData, TensorImages
from datamodules.digits import CLASS_NAMES, check_digits, digit_parts
from datamodules.domain_source import Batches, DomainSource, DomainSubset
from datamodules.stream import StreamDataModule
from tta.errors import InputError

SOURCE_ANGLES = (0.0, 15.0, 30.0, 45.0, 60.0, 75.0)
UNSEEN_ANGLES = (-45.0, -30.0, -15.0, 90.0, 105.0, 120.0)


def angle_name(angle: float) -> str:
    """Write an angle as the name of its domain: ``0``, ``-45``, ``22.5``."""
    return repr(float(angle) + 0.0).removesuffix(".0")


def check_angles(angles: Sequence[float], argument: str) -> list[str]:
    """Name the domains of some angles.

    Args:
        angles: In degrees, counter-clockwise.
        argument: The place, for the message.

    Returns:
        Name of each.

    Raises:
        InputError: If there is none, one is outside [-180, 180], or two are the same turn.
    """
    for angle in angles:
        if not -180 <= angle <= 180:
            raise InputError(f"{argument}: {angle} is outside [-180, 180]; give angles in degrees, such as 45.")
    if -180 in angles and 180 in angles:
        raise InputError(f"{argument}: -180 and 180 are the same turn; give one of them.")
    names = [angle_name(angle) for angle in angles]
    check_distinct(names, argument, "write each angle once")
    return names


def turn(images: TensorImages, angle: float) -> Tensor:
    """Turn grey images around their centre, by bilinear interpolation; what comes in from outside is black.

    Args:
        images: With three equal channels.
        angle: In degrees, counter-clockwise.

    Returns:
        Float32, shape ``(N, 3, H, W)``, in [0, 1].
    """
    turned: Tensor = F.rotate(images.images[:, :1], angle, InterpolationMode.BILINEAR)
    return turned.clamp(0, 1).expand(-1, 3, -1, -1)


def turned_by_all(images: TensorImages, angles: Sequence[float]) -> DomainSubset:
    """Turn every image by every angle.

    Args:
        images: ``N`` grey images with three equal channels.
        angles: ``D`` angles in degrees, counter-clockwise.

    Returns:
        ``D * N`` images, angle after angle; the number of an angle is the domain.
    """
    turned = torch.cat([turn(images, angle)[:, :1] for angle in angles]).expand(-1, 3, -1, -1)
    every = TensorImages(turned, np.tile(images.labels, len(angles)))
    domain = np.arange(len(angles), dtype=np.int64).repeat(len(images))
    return DomainSubset(every, np.arange(len(every), dtype=np.int64), domain)


class RotatedDigits(DomainSource):
    """Digits for source training, every image turned by every angle: a domain for each angle.

    The split is that of ``Digits``: 50 % to train on, 15 % held out, 35 % to test on, the same images for all angles.
    """

    def __init__(
        self,
        angles: Sequence[float] = SOURCE_ANGLES,
        image_size: int = 32,
        augment: bool = False,
        split_seed: int = 0,
        batches: Batches = "mixed",
        **options: Any,  # noqa: ANN401 - the bases name and type them
    ) -> None:
        """Check the arguments; images are read in ``setup``.

        Args:
            angles: In degrees, counter-clockwise, in [-180, 180]; the domains, named ``0``, ``-45``, ``22.5``.
            image_size: Side in pixels, at least 8; the 8x8 originals are enlarged bilinearly, and turned then.
            augment: Rotate, shift and scale the training images a little more.
            split_seed: Non-negative seed of the split; the stream to adapt to must have the same.
            batches: What a training batch is made of: ``mixed``, ``one_domain`` or ``every_domain``.
            **options: Arguments of ``SourceDataModule`` and ``Loading``.

        Raises:
            InputError: If an argument is out of range, or an angle is given twice.
        """
        super().__init__(domains=check_angles(angles, "angles"), batches=batches, **options)
        check_digits(image_size, split_seed)
        self.class_names = CLASS_NAMES
        self.angles = [float(angle) for angle in angles]
        self.image_size = image_size
        self.split_seed = split_seed
        self.augment = small_affine if augment else None

    def setup(self, stage: str | None = None) -> None:
        """Read, split and turn the images, once.

        Args:
            stage: Ignored: all stages need the same.
        """
        if hasattr(self, "train"):
            return
        parts = digit_parts(self.image_size, self.split_seed)
        self.train, self.heldout, self.test = (turned_by_all(part, self.angles) for part in parts)


class RotatedDigitsStream(StreamDataModule):
    """A stream of digits that source training has not seen, turned by one angle after the other.

    ``source_dataloader`` and ``val_dataloader`` give the images of source training, turned by the source's angles.
    """

    default_domains: ClassVar[tuple[str, ...]] = tuple(angle_name(angle) for angle in UNSEEN_ANGLES)

    def __init__(
        self,
        angles: Sequence[float] = UNSEEN_ANGLES,
        source_angles: Sequence[float] = SOURCE_ANGLES,
        image_size: int = 32,
        split_seed: int = 0,
        **options: Any,  # noqa: ANN401 - the bases name and type them
    ) -> None:
        """Check the arguments; images are read in ``setup``.

        Args:
            angles: In degrees, counter-clockwise, in [-180, 180]; the domains that there are, named ``0``, ``-45``,
                ``22.5``. All are shown in this order, unless ``domains`` chooses some by their names.
            source_angles: Angles of source training.
            image_size: Side in pixels, at least 8; as in source training.
            split_seed: Non-negative seed of the split; it must be the one of source training.
            **options: Arguments of ``StreamDataModule`` and ``Loading``.

        Raises:
            InputError: If an argument is out of range, or an angle is given twice.
        """
        self._angle_of = dict(zip(check_angles(angles, "angles"), map(float, angles), strict=True))
        check_angles(source_angles, "source_angles")
        super().__init__(**options)
        check_digits(image_size, split_seed)
        self.class_names = CLASS_NAMES
        self.angles = [float(angle) for angle in angles]
        self.source_angles = [float(angle) for angle in source_angles]
        self.image_size = image_size
        self.split_seed = split_seed
        self._turned: dict[str, TensorImages] = {}

    def available_domains(self) -> list[str]:
        """Name of every angle."""
        return list(self._angle_of)

    def check_domain(self, text: str) -> str:
        """Return the name of a domain.

        Args:
            text: One of the angles as text.

        Raises:
            InputError: If it is none of the angles.
        """
        return check_name(text, self._angle_of, "domains")

    def setup(self, stage: str | None = None) -> None:
        """Read and split the images, once.

        Args:
            stage: Ignored: all stages need the same.
        """
        if self.source is None:
            train, heldout, self._upright = digit_parts(self.image_size, self.split_seed)
            self.source = turned_by_all(train, self.source_angles)
            self.heldout = turned_by_all(heldout, self.source_angles)

    def images_of(self, condition: str) -> ImageData:
        """The images of the stream, turned by an angle.

        Args:
            condition: Name of the angle.
        """
        if condition not in self._turned:
            turned = turn(self._upright, self._angle_of[condition])
            self._turned[condition] = TensorImages(turned, self._upright.labels)
        return self._turned[condition]
