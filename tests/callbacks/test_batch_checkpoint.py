"""Checkpoints counted in batches."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.plugins.io import AsyncCheckpointIO

from tta.callbacks import BatchCheckpoint
from tta.callbacks.batch_checkpoint import DirectFile, save_whole
from tta.errors import InputError


class _Trainer:
    is_global_zero = True

    def __init__(self, fail: bool) -> None:
        self.fail = fail
        self.strategy = SimpleNamespace(checkpoint_io=TorchCheckpointIO())

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


def test_a_file_written_directly_is_as_lightnings(tmp_path: Path) -> None:
    checkpoint = {"weights": torch.arange(5.0), "step": 3}
    DirectFile().save_checkpoint(checkpoint, tmp_path / "new" / "direct.ckpt")
    TorchCheckpointIO().save_checkpoint(checkpoint, tmp_path / "lightning.ckpt")
    ours, theirs = (torch.load(tmp_path / name, weights_only=True) for name in ("new/direct.ckpt", "lightning.ckpt"))
    assert torch.equal(ours.pop("weights"), theirs.pop("weights"))
    assert ours == theirs == {"step": 3}


def test_a_full_disk_is_called_so_by_a_direct_file() -> None:
    with pytest.raises(OSError, match="No space left"):
        DirectFile().save_checkpoint({"weights": torch.zeros(100_000)}, "/dev/full")


@pytest.mark.parametrize("given", [TorchCheckpointIO(), AsyncCheckpointIO()])
def test_the_trainers_own_way_to_write_is_put_aside_at_most_for_the_stream_s_checkpoint(
    given: Any, tmp_path: Path
) -> None:
    trainer: Any = _Trainer(fail=False)
    trainer.strategy.checkpoint_io = given
    used = []
    save = trainer.save_checkpoint
    trainer.save_checkpoint = lambda *a, **k: (used.append(trainer.strategy.checkpoint_io), save(*a, **k))
    save_whole(trainer, tmp_path / "last.ckpt")
    assert (used[0] is given) == isinstance(given, AsyncCheckpointIO)
    assert trainer.strategy.checkpoint_io is given


def test_the_interval_is_checked() -> None:
    with pytest.raises(InputError, match="every_n_batches=0"):
        BatchCheckpoint(0)
