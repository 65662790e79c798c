import numpy as np
import pytest
import torch

from datamodules import CorruptedDataset, Domain
from datamodules.datasets import ImageSubset, TensorImages, collate
from tta.errors import InputError


@pytest.fixture
def images():
    pixels = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return TensorImages(pixels, np.array([0, 1, -1, 2, 1, 0]))


def test_a_corrupted_sample_has_the_four_keys(images):
    data = CorruptedDataset(images, [Domain("clean", 5), Domain("jpeg", 5)], seed=1)
    sample = data[(4, 1)]
    assert len(data) == 12
    assert {key: value.dtype for key, value in sample.items()} == {
        "image": torch.float32,
        "label": torch.int64,
        "domain": torch.int64,
        "index": torch.int64,
    }
    assert (sample["label"], sample["domain"], sample["index"]) == (1, 1, 4)
    assert torch.equal(data[(2, 0)]["image"], images[2][0])
    assert data[(2, 0)]["label"] == -1


def test_a_subset_renumbers(images):
    subset = ImageSubset(images, np.array([3, 5]))
    assert len(subset) == 2
    assert subset.labels.tolist() == [2, 0]
    assert torch.equal(subset[1][0], images[5][0])


def test_images_of_different_shapes_do_not_make_a_batch():
    samples = [{"image": torch.zeros(3, 8, width)} for width in (8, 9)]
    with pytest.raises(InputError, match=r"\(3, 8, 8\), \(3, 8, 9\).*image_size"):
        collate(samples)
