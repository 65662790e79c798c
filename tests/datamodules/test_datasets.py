import numpy as np
import pytest
import torch

from datamodules import Domain, corrupt
from datamodules.datasets import BatchCorruption, ImageSubset, StreamDataset, TensorImages, collate
from tta.errors import InputError


@pytest.fixture
def images():
    pixels = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return TensorImages(pixels, np.array([0, 1, -1, 2, 1, 0]))


KEYS = [(4, 1, 0), (2, 0, 0), (5, 1, 1)]


def test_a_batch_of_a_stream_has_the_five_keys(images):
    batch = StreamDataset([images, images]).__getitems__(KEYS)
    assert {key: value.dtype for key, value in batch.items()} == {
        "image": torch.float32,
        "label": torch.int64,
        "domain": torch.int64,
        "condition": torch.int64,
        "index": torch.int64,
    }
    assert torch.equal(batch["image"], images.images[[4, 2, 5]])
    assert batch["label"].tolist() == [1, -1, 0]
    rows = zip(batch["index"].tolist(), batch["condition"].tolist(), batch["domain"].tolist(), strict=True)
    assert list(rows) == KEYS


def test_every_image_of_a_batch_is_corrupted_by_its_condition(images):
    domains = [Domain(), Domain((("gaussian_noise", 5.0),))]
    plain = StreamDataset([images, images]).__getitems__(KEYS)
    batch = StreamDataset([images, images], BatchCorruption(domains, 3, "32")).__getitems__(KEYS)
    assert torch.equal(batch["image"][1], plain["image"][1])
    for row in (0, 2):
        expected = corrupt(plain["image"][[row]], domains[1], 3, [KEYS[row][0]], "32")
        assert torch.equal(batch["image"][[row]], expected)
    assert torch.equal(plain["image"], images.images[[4, 2, 5]])


def test_a_subset_renumbers(images):
    subset = ImageSubset(images, np.array([3, 5]))
    assert len(subset) == 2
    assert subset.labels.tolist() == [2, 0]
    assert torch.equal(subset[1][0], images[5][0])


def test_images_of_different_shapes_do_not_make_a_batch():
    samples = [{"image": torch.zeros(3, 8, width)} for width in (8, 9)]
    with pytest.raises(InputError, match=r"\(3, 8, 8\), \(3, 8, 9\).*image_size"):
        collate(samples)
