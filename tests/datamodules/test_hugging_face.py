import sys

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.hugging_face import HuggingFaceSource, HuggingFaceStream
from tta.errors import InputError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _offline(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def saved(tmp_path, hub_split):
    """A folder with 20 training and 8 test images of two classes."""
    datasets.DatasetDict({"train": hub_split(20), "test": hub_split(8)}).save_to_disk(tmp_path / "pets")
    return str(tmp_path / "pets")


def built(module):
    module.setup()
    return module


def test_a_stream_shows_the_split(saved, hub_split):
    module = built(HuggingFaceStream(saved, batch_size=3))
    batches = list(module.train_dataloader())
    assert module.class_names == ["cat", "dog"]
    assert module.domains == ["clean"]
    index = torch.cat([batch["index"] for batch in batches])
    assert sorted(index.tolist()) == list(range(8))
    assert torch.equal(torch.cat([batch["label"] for batch in batches]), index % 2)
    stored = np.array(hub_split(8)[int(index[0])]["image"]).transpose(2, 0, 1)
    assert torch.equal(batches[0]["image"][0], torch.from_numpy(stored.astype(np.float32)) / 255)
    assert module.val_dataloader() == []


def test_training_and_stream_share_the_split(saved):
    options = {"image_size": 8, "val_share": 0.3}
    source = built(HuggingFaceSource(saved, **options))
    stream = built(
        HuggingFaceStream(saved, source_split="train", domains=["gaussian_noise:2"], batch_size=8, **options)
    )
    assert source.class_counts == [7, 7]
    assert source.heldout.indices.tolist() == stream.heldout.indices.tolist()
    assert source.train.indices.tolist() == stream.source.indices.tolist()
    assert next(iter(source.train_dataloader()))["image"].shape == (14, 3, 8, 8)
    assert next(iter(stream.train_dataloader()))["image"].shape == (8, 3, 8, 8)


def test_a_validation_split_leaves_all_training_images(saved):
    source = built(HuggingFaceSource(saved, val_split="test"))
    assert source.class_counts == [10, 10]
    assert sum(len(batch["label"]) for batch in source.val_dataloader()) == 8


def test_a_folder_of_images_is_read_by_the_library(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "tree" / "test" / name).mkdir(parents=True)
        Image.new("L", (8, 8), 51).save(tmp_path / "tree" / "test" / name / "0.png")
    module = built(HuggingFaceStream(str(tmp_path / "tree"), batch_size=2))
    batch = next(iter(module.train_dataloader()))
    assert sorted(batch["label"].tolist()) == [0, 1]
    assert torch.allclose(batch["image"], torch.full((2, 3, 8, 8), 0.2))


def test_an_image_that_cannot_be_decoded_is_named(saved, tmp_path, hub_split):
    data = hub_split(4).cast_column("image", datasets.Image(decode=False))
    data = data.map(
        lambda row, index: {"image": {"bytes": b"no image", "path": None}} if index == 2 else row, with_indices=True
    )
    data.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "bad")
    module = built(HuggingFaceStream(str(tmp_path / "bad"), split="train", batch_size=4))
    with pytest.raises(InputError, match="image: row 2 cannot be read"):
        list(module.train_dataloader())


@pytest.mark.parametrize("kind", [HuggingFaceSource, HuggingFaceStream])
def test_wrong_arguments_are_refused(saved, kind, tmp_path):
    with pytest.raises(InputError, match=r"split: 'tests' is unknown; choose one of test, train.*'test'"):
        kind(saved, split="tests")
    with pytest.raises(InputError, match=r"path: cannot open split 'test' of '.*nowhere'"):
        kind(str(tmp_path / "nowhere"), split="test")
    with pytest.raises(InputError, match="image_column: 'img' is unknown; choose one of image, label, note"):
        kind(saved, image_column="img")
    with pytest.raises(InputError, match=r"image_column: 'note' holds Value.*not images"):
        kind(saved, image_column="note")
    with pytest.raises(InputError, match=r"label_column: 'note' holds Value.*class_encode_column"):
        kind(saved, label_column="note")
    with pytest.raises(InputError, match="val_share"):
        kind(saved, val_share=2)


def test_splits_of_different_classes_are_refused(tmp_path, hub_split):
    datasets.DatasetDict({"train": hub_split(6), "test": hub_split(6, ("cat", "eel"))}).save_to_disk(tmp_path / "pets")
    with pytest.raises(InputError, match=r"source_split: .*\['dog', 'eel'\]"):
        HuggingFaceStream(str(tmp_path / "pets"), source_split="train")
    with pytest.raises(InputError, match="val_split"):
        HuggingFaceSource(str(tmp_path / "pets"), val_split="test")


def test_the_missing_library_is_named(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'tta\[huggingface\]'"):
        HuggingFaceStream(saved)
