import pytest
import torch
from torch.nn import functional as F

from datamodules.corruptions import Domain, corrupt


def _smooth_images(number, channels=3, height=32, width=32):
    """Random images with soft and hard edges and with values all over [0, 1], whole levels as in a file."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(number, channels, 6, 6, generator=generator)
    images = F.interpolate(coarse, (height, width), mode="bicubic") * 1.4 - 0.2
    images[:, :, height // 4 : height // 2, width // 3 : width // 2] += 0.5
    return images.clamp(0, 1).mul(255).round().div(255)


@pytest.fixture(scope="session")
def smooth_images():
    return _smooth_images


@pytest.fixture
def images():
    return _smooth_images(4)


@pytest.fixture(scope="session")
def apply():
    """Corrupt images by name, severity and level set; image ``i`` has index ``i``."""

    def applied(images, text, levels="auto", seed=0):
        return corrupt(images, Domain.parse(text, 5), seed, range(len(images)), levels)

    return applied
