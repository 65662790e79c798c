import pytest
import torch

from datamodules import Digits, DigitsStream
from tta.errors import InputError


@pytest.fixture(scope="module")
def source():
    module = Digits()
    module.setup()
    return module


@pytest.fixture(scope="module")
def stream():
    module = DigitsStream()
    module.setup()
    return module


def keys(data):
    return {data[index][0].numpy().tobytes() for index in range(len(data))}


def test_the_stream_was_not_seen_in_source_training(source, stream):
    train, heldout, target = keys(source.train), keys(source.heldout), keys(stream.stream)
    assert not train & target
    assert not train & heldout
    assert not heldout & target
    assert len(source.train) + len(source.heldout) + len(stream.stream) == 1797
    assert keys(stream.source) == train
    assert keys(stream.heldout) == heldout
    assert keys(source.test) == target


def test_another_split_seed_gives_another_split(stream):
    other = DigitsStream(split_seed=1)
    other.setup()
    assert keys(other.stream) != keys(stream.stream)


def test_images_are_colour_in_range_and_of_the_wanted_size(stream):
    image, label = stream.stream[0]
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.float32
    assert 0 <= image.min() < image.max() <= 1
    assert 0 <= label < 10
    small = DigitsStream(image_size=8)
    small.setup()
    assert small.stream[0][0].shape == (3, 8, 8)


def test_the_default_stream_shows_every_corruption(stream):
    assert len(stream.domains) == 12
    assert "clean" not in stream.domains
    assert len(stream.train_dataloader()) == 12 * -(-len(stream.stream) // 64)


def test_classes_are_balanced(source):
    assert source.class_names == [str(digit) for digit in range(10)]
    assert sum(source.class_counts) == len(source.train)
    assert max(source.class_counts) - min(source.class_counts) <= 6


def test_augmentation_is_optional_and_seeded(source):
    plain = Digits(augment=False)
    plain.setup()

    def first(module):
        return next(iter(module.train_dataloader()))

    assert torch.equal(first(source)["index"], first(plain)["index"])
    assert torch.equal(first(source)["image"], first(source)["image"])
    assert not torch.equal(first(source)["image"], first(plain)["image"])
    assert torch.equal(first(plain)["image"][0], plain.train[int(first(plain)["index"][0])][0])


@pytest.mark.parametrize("kind", [Digits, DigitsStream])
@pytest.mark.parametrize(
    ("options", "message"), [({"image_size": 4}, "image_size: 4"), ({"split_seed": -1}, "split_seed")]
)
def test_wrong_arguments_are_refused(kind, options, message):
    with pytest.raises(InputError, match=message):
        kind(**options)
