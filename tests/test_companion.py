"""Files of what methods need."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tta.companion import Companion
from tta.errors import InputError

SETTINGS = {"classes": 10, "form": "low_rank", "blocks": ["layer1", "layer2"], "share": 0.25}


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    tensors = {"weight": torch.randn(3, 4), "count": torch.tensor([1, 2]), "view": torch.randn(4, 6).t()}
    path = tmp_path / "new" / "companion.safetensors"
    Companion("LabelShift", tensors, SETTINGS).save(path)
    loaded = Companion.load(path, "LabelShift")
    assert loaded.kind == "LabelShift"
    assert loaded.settings == SETTINGS
    assert loaded.tensors.keys() == tensors.keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in tensors.items())
    assert [file.name for file in path.parent.iterdir()] == ["companion.safetensors"]


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no companion of ITTA at .*gone\.safetensors: give the companion") as caught:
        Companion.load(tmp_path / "gone.safetensors", "ITTA")
    assert "\n" not in str(caught.value)


def test_companion_of_another_method_is_refused(tmp_path: Path) -> None:
    Companion("LabelShift", {"a": torch.zeros(1)}).save(tmp_path / "c.safetensors")
    with pytest.raises(InputError, match="holds a companion of LabelShift, not one of ITTA"):
        Companion.load(tmp_path / "c.safetensors", "ITTA")


def test_plain_weights_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="holds plain weights, not one of ITTA"):
        Companion.load(tmp_path / "weights.safetensors", "ITTA")


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps([1, 2])])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot read a companion from") as caught:
        Companion.load(path, "ITTA")
    assert "\n" not in str(caught.value)


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    Companion("ITTA", {"a": torch.randn(100)}).save(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="cannot read a companion from"):
        Companion.load(path, "ITTA")
