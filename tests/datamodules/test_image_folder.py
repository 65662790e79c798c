import shutil

import pytest
import torch
from PIL import Image

from datamodules import ImageFolderSource, ImageFolderStream
from tta.errors import InputError


def built(module):
    module.setup()
    return module


def test_a_stream_shows_the_target_tree(tree):
    module = built(ImageFolderStream(str(tree / "test"), batch_size=3))
    loaded = list(module.train_dataloader())
    assert module.class_names == ["cat", "dog"]
    assert module.domains == ["clean"]
    assert sorted(torch.cat([batch["index"] for batch in loaded]).tolist()) == list(range(8))
    assert loaded[0]["image"].shape == (3, 3, 16, 16)
    assert 0 <= loaded[0]["image"].min() < loaded[0]["image"].max() <= 1
    assert module.val_dataloader() == []


def test_pixels_are_those_of_the_file(tree, tmp_path):
    shutil.copytree(tree / "test", tmp_path / "copy")
    Image.new("L", (16, 16), 51).save(tmp_path / "copy" / "cat" / "0.jpg")
    module = built(ImageFolderStream(str(tmp_path / "copy")))
    assert torch.allclose(module.stream[0][0], torch.full((3, 16, 16), 0.2), atol=1e-6)


def test_corrupted_streams_work_with_workers(tree):
    options = {"domains": ["gaussian_noise:2", "clean"], "batch_size": 3}
    one = list(built(ImageFolderStream(str(tree / "test"), **options)).train_dataloader())
    two = list(built(ImageFolderStream(str(tree / "test"), num_workers=2, **options)).train_dataloader())
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(one, two, strict=True))


def test_the_held_out_share_is_the_same_in_training_and_stream(tree):
    source = built(ImageFolderSource(str(tree / "train"), val_share=0.25))
    stream = built(ImageFolderStream(str(tree / "test"), source_root=str(tree / "train"), val_share=0.25))
    assert source.class_counts == [9, 9]
    assert source.heldout.indices.tolist() == stream.heldout.indices.tolist()
    assert source.train.indices.tolist() == stream.source.indices.tolist()
    assert sum(len(batch["label"]) for batch in stream.source_dataloader()) == 18
    assert sum(len(batch["label"]) for batch in stream.val_dataloader()) == 6
    assert sum(len(batch["label"]) for batch in source.test_dataloader()) == 6


def test_a_validation_tree_leaves_all_training_images(tree):
    source = ImageFolderSource(str(tree / "train"), str(tree / "test"))
    assert source.class_counts == [12, 12]
    assert len(source.heldout) == 8
    batch = next(iter(source.train_dataloader()))
    assert batch["image"].shape == (24, 3, 16, 16)


def test_images_are_scaled_and_cut_to_the_wanted_size(tree, tmp_path):
    shutil.copytree(tree / "test", tmp_path / "wide")
    Image.new("RGB", (40, 20)).save(tmp_path / "wide" / "cat" / "0.jpg")
    with pytest.raises(InputError, match="image_size"):
        list(built(ImageFolderStream(str(tmp_path / "wide"), batch_size=8)).train_dataloader())
    for resize in (None, 14):
        module = built(ImageFolderStream(str(tmp_path / "wide"), image_size=12, resize=resize, batch_size=8))
        assert next(iter(module.train_dataloader()))["image"].shape == (8, 3, 12, 12)


@pytest.mark.parametrize("kind", [ImageFolderSource, ImageFolderStream])
def test_a_missing_tree_says_where_it_looked_and_what_to_do(kind, tmp_path):
    missing = str(tmp_path / "nowhere")
    with pytest.raises(InputError, match=rf"root: .*looked at {missing}.*ROOT/CLASS/IMAGE"):
        kind(missing)


def test_a_tree_without_classes_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no class folders"):
        ImageFolderStream(str(tmp_path))


def test_a_class_without_images_is_refused(tree, tmp_path):
    shutil.copytree(tree / "test", tmp_path / "copy")
    (tmp_path / "copy" / "eel").mkdir()
    with pytest.raises(InputError, match="eel"):
        ImageFolderStream(str(tmp_path / "copy")).setup()


def test_trees_with_different_classes_are_refused(tree, tmp_path):
    shutil.copytree(tree / "test", tmp_path / "copy")
    shutil.move(tmp_path / "copy" / "dog", tmp_path / "copy" / "eel")
    with pytest.raises(InputError, match=r"source_root.*\['dog', 'eel'\]"):
        ImageFolderStream(str(tree / "test"), source_root=str(tmp_path / "copy"))
    with pytest.raises(InputError, match="val_root"):
        ImageFolderSource(str(tree / "train"), str(tmp_path / "copy"))


@pytest.mark.parametrize(
    ("content", "num_workers"), [(b"", 0), (b"\xff\xd8\xff\xe0 half a header", 0), (b"not an image", 1)]
)
def test_an_unreadable_image_is_named(tree, tmp_path, content, num_workers):
    shutil.copytree(tree / "test", tmp_path / "copy")
    (tmp_path / "copy" / "dog" / "2.jpg").write_bytes(content)
    module = built(ImageFolderStream(str(tmp_path / "copy"), num_workers=num_workers, batch_size=4))
    with pytest.raises(InputError, match=r"dog/2\.jpg.*cannot be read"):
        list(module.train_dataloader())


def test_unreadable_images_can_be_skipped(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "copy")
    for split in ("train", "test"):
        (tmp_path / "copy" / split / "dog" / "2.jpg").write_bytes(b"not an image")
    roots = [str(tmp_path / "copy" / split) for split in ("test", "train")]
    with (
        pytest.warns(UserWarning, match="source_root: 1 of 24 images"),
        pytest.warns(UserWarning, match=r"^root: 1 of 8 images cannot be read and are left out: .*dog/2\.jpg"),
    ):
        stream = built(ImageFolderStream(*roots, unreadable="skip", batch_size=7))
    assert sum(len(batch["label"]) for batch in stream.train_dataloader()) == 7
    assert stream.stream.skipped == [str(tmp_path / "copy" / "test" / "dog" / "2.jpg")]
    with pytest.warns(UserWarning, match="train_root: 1 of 24 images"):
        source = built(ImageFolderSource(roots[1], unreadable="skip"))
    assert len(source.train) + len(source.heldout) == 23


def test_trees_are_listed_once(tree):
    source, stream = ImageFolderSource(str(tree / "train")), ImageFolderStream(str(tree / "test"))
    first = built(source).train, built(stream).stream
    assert built(source).train is first[0]
    assert built(stream).stream is first[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 1}, "image_size"),
        ({"resize": 100}, "resize"),
        ({"val_share": 1.0}, "val_share"),
        ({"split_seed": -1}, "split"),
        ({"unreadable": "ignore"}, "unreadable"),
    ],
)
@pytest.mark.parametrize("kind", [ImageFolderSource, ImageFolderStream])
def test_wrong_arguments_are_refused(tree, kind, options, message):
    with pytest.raises(InputError, match=message):
        kind(str(tree / "train"), **options)
