import numpy as np
import pytest
import torch

from datamodules.augmentations import crop_and_flip, small_affine
from datamodules.datasets import CleanDataset, TensorImages


@pytest.fixture
def images():
    return TensorImages(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), np.array([0, 1]))


@pytest.mark.parametrize("augment", [small_affine, crop_and_flip])
def test_augmentation_is_decided_by_seed_index_and_epoch(images, augment):
    data = CleanDataset(images, augment, seed=3)
    first = data[(0, 0)]["image"]
    assert first.shape == (3, 16, 16)
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(first, CleanDataset(images, augment, seed=3)[(0, 0)]["image"])
    assert not torch.equal(first, data[(0, 1)]["image"])
    assert not torch.equal(first, CleanDataset(images, augment, seed=4)[(0, 0)]["image"])
