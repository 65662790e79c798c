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


@pytest.mark.parametrize("given", [None, AsyncCheckpointIO()])
def test_a_way_to_write_that_the_trainer_was_given_is_left(given: Any) -> None:
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(checkpoint_io=given or TorchCheckpointIO()))
    module: Any = None
    BatchCheckpoint().setup(trainer, module, "fit")
    assert trainer.strategy.checkpoint_io is given if given else isinstance(trainer.strategy.checkpoint_io, DirectFile)


def test_the_interval_is_checked() -> None:
    with pytest.raises(InputError, match="every_n_batches=0"):
        BatchCheckpoint(0)
