"""Checkpoints counted in batches."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tta.callbacks import BatchCheckpoint
from tta.callbacks.batch_checkpoint import save_whole
from tta.errors import InputError


class _Trainer:
    is_global_zero = True

    def __init__(self, fail: bool) -> None:
        self.fail = fail

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"batch": 2}, path)
        if self.fail:
            path.write_bytes(path.read_bytes()[:20])
            raise OSError("No space left on device")


def test_a_failed_write_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    torch.save({"batch": 1}, path)
    failing: Any = _Trainer(fail=True)
    with pytest.raises(InputError, match=r"cannot write .*last\.ckpt .*No space.*go on with"):
        save_whole(failing, path)
    assert torch.load(path, weights_only=True) == {"batch": 1}
    working: Any = _Trainer(fail=False)
    save_whole(working, path)
    assert torch.load(path, weights_only=True) == {"batch": 2}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_the_interval_is_checked() -> None:
    with pytest.raises(InputError, match="every_n_batches=0"):
        BatchCheckpoint(0)
