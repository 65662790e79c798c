"""A run that something happens to keeps what it wrote, says what happened in one line, and goes on."""

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Trainer
from torch.utils.data import get_worker_info

from datamodules.datasets import TensorImages

Interrupted = Callable[[Callable[[int, Path], None]], tuple[int | None, list[str]]]
Complete = Callable[[Path], tuple[int, int, int]]
GoesOn = Callable[[], None]


def no_file_beyond(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_disk_that_is_full_in_the_middle_of_a_row(
    interrupted: Interrupted, complete: Complete, goes_on: GoesOn, tmp_path: Path
) -> None:
    def fault(batch: int, folder: Path) -> None:
        if batch == 5:
            no_file_beyond((folder / "predictions.csv").stat().st_size + 100)

    status, said = interrupted(fault)
    path = tmp_path / "run" / "predictions.csv"
    remedy = "once it can be written, go on with the same command and --ckpt_path last"
    assert status == 2
    assert said == [f"tta: error: cannot write {path} (File too large): {remedy}"]
    assert complete(tmp_path / "run") == (5, 5, 4)
    goes_on()


def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint(
    interrupted: Interrupted, complete: Complete, goes_on: GoesOn, tmp_path: Path
) -> None:
    def fault(batch: int, folder: Path) -> None:
        if batch == 5:
            no_file_beyond((folder / "checkpoints" / "last.ckpt").stat().st_size // 2)

    status, said = interrupted(fault)
    assert status == 2
    assert len(said) == 1
    assert said[0].startswith(f"tta: error: cannot write {tmp_path / 'run' / 'checkpoints' / 'last.ckpt'} (File too")
    assert complete(tmp_path / "run") == (6, 6, 4)
    goes_on()


def test_a_kill_in_the_middle_of_a_checkpoint(
    interrupted: Interrupted, complete: Complete, goes_on: GoesOn, tmp_path: Path
) -> None:
    def fault(batch: int, folder: Path) -> None:
        if batch == 5:
            save = Trainer.save_checkpoint

            def half(self: Trainer, path: Path, *args: Any, **kwargs: Any) -> None:
                save(self, path, *args, **kwargs)
                os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

            Trainer.save_checkpoint = half  # type: ignore[method-assign]

    assert interrupted(fault) == (-signal.SIGKILL, [])
    (tmp_path / "run" / "checkpoints" / "last.tmp").unlink()  # what was cut off; the next checkpoint replaces it
    assert complete(tmp_path / "run") == (6, 6, 4)
    goes_on()


FAILURES: dict[str, tuple[Callable[[], None], str]] = {
    "raises": (lambda: [].pop(), "image: TensorImages["),
    "is killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), "DataLoader worker"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_worker_that_fails(
    what: str,
    adapt: Callable[..., int],
    complete: Complete,
    goes_on: GoesOn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail, message = FAILURES[what]
    read = TensorImages.__getitem__
    count = 0

    def failing(self: TensorImages, index: int) -> Any:
        nonlocal count
        if get_worker_info() is not None:
            count += 1
            if count == 55:
                fail()
        return read(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TensorImages, "__getitem__", failing)
        assert adapt("--data.num_workers", "1") == 2
    error = capsys.readouterr().err
    said = [line for line in error.splitlines() if line.startswith(("tta: error", "Traceback"))]
    assert len(said) == 1
    assert message in said[0]
    assert said[0].endswith("--ckpt_path last")
    predicted, measured, saved = complete(tmp_path / "run")
    assert predicted == measured >= saved >= 2
    goes_on()
