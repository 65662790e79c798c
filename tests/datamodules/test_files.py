import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.decoding import check_sizes, find_unreadable, fit_size, load_image
from datamodules.files import ImageFiles, check_same_classes, class_folders, class_tree, image_names
from tta.errors import InputError


def write(path, size=(24, 24), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.fixture
def root(tmp_path):
    """Two classes with three images each, as JPEG, progressive JPEG and PNG."""
    for name in ("cat", "dog"):
        write(tmp_path / name / "0.jpg")
        write(tmp_path / name / "1.JPEG", progressive=True)
        write(tmp_path / name / "2.png")
    return tmp_path


def files(root, **options):
    return ImageFiles(class_tree(str(root), ["cat", "dog"]), "root", **options)


def test_images_and_classes_come_in_order_of_the_names(root):
    data = files(root)
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.labels.dtype == np.int64
    assert [data.path(index) for index in (0, 4)] == [str(root / "cat" / "0.jpg"), str(root / "dog" / "1.JPEG")]
    image, label = data[5]
    assert (image.shape, image.dtype, label) == ((3, 24, 24), torch.float32, 1)
    with Image.open(root / "dog" / "2.png") as stored:
        assert torch.equal(image, torch.from_numpy(np.array(stored).transpose(2, 0, 1)).float() / 255)
    assert torch.equal(pickle.loads(pickle.dumps(data))[5][0], image)


def test_only_images_are_listed(root):
    (root / "cat" / "notes.txt").write_text("text")
    (root / "cat" / "._0.jpg").write_bytes(b"a Mac's companion file")
    (root / ".cache").mkdir()
    write(root / "cat" / "more" / "3.jpg")
    assert image_names(str(root / "cat")) == ["0.jpg", "1.JPEG", "2.png", "more/3.jpg"]
    assert class_folders(str(root), "root") == ["cat", "dog"]


def test_an_empty_class_is_refused(root):
    (root / "eel").mkdir()
    (root / "eel" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"root: no image in 1 of 3 class folders, such as '.*eel'; add images"):
        ImageFiles(class_tree(str(root), ["cat", "dog", "eel"]), "root")


def test_other_classes_are_refused(root):
    with pytest.raises(InputError, match=r"val_root: .*\['dog', 'eel'\]"):
        check_same_classes(["cat", "eel"], str(root), "val_root")


@pytest.mark.parametrize("name", ["0.jpg", "1.JPEG", "2.png"])
def test_a_truncated_image_is_refused_by_name_when_it_is_read(root, name):
    cut(root / "dog" / name, 0.9)
    data = files(root)
    with pytest.raises(InputError, match=rf"image: '.*dog/{name}' cannot be read .*unreadable='skip'"):
        [data[index] for index in range(len(data))]


@pytest.mark.parametrize("share", [0, 0.3, 0.98])
def test_unreadable_images_are_skipped_counted_and_named(root, share):
    bad = [root / "cat" / "0.jpg", root / "cat" / "1.JPEG", root / "dog" / "0.jpg", root / "dog" / "2.png"]
    for path in bad:
        cut(path, share)
    with pytest.warns(UserWarning, match=r"root: 4 of 6 images cannot be read and are left out: .*dog/0\.jpg, \.\.\.$"):
        data = files(root, unreadable="skip")
    assert data.skipped == [str(path) for path in bad]
    assert data.labels.tolist() == [0, 1]
    assert data.folder.tolist() == [0, 1]
    assert [data.path(index) for index in range(2)] == [str(root / "cat" / "2.png"), str(root / "dog" / "1.JPEG")]
    assert [data[index][1] for index in range(2)] == [0, 1]


def test_readable_images_are_not_warned_about(root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = files(root, unreadable="skip")
    assert (len(data), data.skipped) == (6, [])


def test_the_scan_keeps_the_order_over_many_chunks(root):
    (root / "bad.jpg").write_bytes(b"no image")
    good, bad = str(root / "cat" / "0.jpg"), str(root / "bad.jpg")
    paths = [bad if number % 97 == 5 else good for number in range(700)]
    assert find_unreadable(paths.__getitem__, len(paths)) == list(range(5, 700, 97))


def test_sizes_are_those_of_the_usual_evaluation(tmp_path):
    pixels = load_image(str(write(tmp_path / "wide.png", (40, 60))))
    image = fit_size(pixels, 16, 20)
    assert image.shape == (3, 16, 16)
    assert 0 <= image.min() < image.max() <= 1
    whole = fit_size(pixels, 20, None)
    assert torch.equal(image, whole[:, 2:18, 2:18])
    assert torch.equal(fit_size(pixels, None, None), pixels.float() / 255)
    square = load_image(str(write(tmp_path / "square.png", (16, 16))))
    assert torch.equal(fit_size(square, 16, None), square.float() / 255)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((4, None), "image_size: 4"), ((16, 12), "resize: 12"), ((None, 16), "resize: 16 is given without")],
)
def test_wrong_sizes_are_refused(sizes, message):
    with pytest.raises(InputError, match=message):
        check_sizes(*sizes)
