import pickle

import numpy as np
import pytest
import torch

from datamodules.arrays import ByteImages, StoredRows, check_array
from tta.errors import InputError


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)


def test_rows_of_a_file_are_the_images(pixels, tmp_path):
    np.save(tmp_path / "fog.npy", pixels)
    labels = np.arange(4)
    stored, held = StoredRows(str(tmp_path / "fog.npy"), 3, labels), ByteImages(pixels[3:7], labels)
    for data in (stored, held):
        assert len(data) == 4
        image, label = data[2]
        assert label == 2
        assert image.dtype == torch.float32
        assert torch.equal(image, torch.from_numpy(pixels[5].transpose(2, 0, 1).astype(np.float32)) / 255)


def test_a_mapped_file_is_not_copied_to_other_processes(pixels, tmp_path):
    np.save(tmp_path / "fog.npy", np.repeat(pixels, 100, axis=0))
    data = StoredRows(str(tmp_path / "fog.npy"), 0, np.arange(10))
    first = data[1][0]
    copied = pickle.dumps(data)
    assert len(copied) < 1000
    assert torch.equal(pickle.loads(copied)[1][0], first)


def test_what_does_not_fit_is_refused(pixels, tmp_path):
    path = str(tmp_path / "fog.npy")
    np.save(path, pixels)
    assert check_array(path, "uint8", (None, 4, 4, 3), "root") == (10, 4, 4, 3)
    with pytest.raises(
        InputError, match=r"root: '.*fog.npy' holds uint8 of shape \(10, 4, 4, 3\), not integer of shap"
    ):
        check_array(path, "integer", (None,), "root")
    with pytest.raises(InputError, match=r"not uint8 of shape \(N, 32, 32, 3\)"):
        check_array(path, "uint8", (None, 32, 32, 3), "root")
    with pytest.raises(InputError, match="not float32"):
        check_array(path, "float32", (None, 4, 4, 3), "root")
    (tmp_path / "fog.npy").write_bytes((tmp_path / "fog.npy").read_bytes()[:200])
    with pytest.raises(InputError, match=r"cannot be read .*download it again"):
        check_array(path, "uint8", (None, 4, 4, 3), "root")
