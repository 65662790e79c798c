"""Checkpoints counted in batches, written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from tta.callbacks.append_file import GO_ON
from tta.errors import InputError, written


class DirectFile(TorchCheckpointIO):
    """Checkpoints written straight into their file.

    Lightning's own makes two copies in memory first, so that the file is whole or not there; see :func:`save_whole`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write it; ``storage_options`` are not used."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            with Path(path).open("wb") as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:  # with which torch covers what the operating system said
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


class BatchCheckpoint(Checkpoint):
    """Save ``checkpoints/last.ckpt`` every few batches and at the end of the stream.

    Lightning counts optimiser steps, of which a gradient-free method takes none. The file is written beside its
    place and moved there, so a kill leaves the one before.

    Args:
        every_n_batches: Batches between two checkpoints, at least 1.

    Raises:
        InputError: If ``every_n_batches`` is below 1.
    """

    def __init__(self, every_n_batches: int = 100) -> None:
        if every_n_batches < 1:
            raise InputError(f"every_n_batches={every_n_batches}: need at least 1")
        self.every_n_batches = every_n_batches

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, when it is time."""
        if (batch_idx + 1) % self.every_n_batches == 0 or trainer.is_last_batch:
            save_whole(trainer, last_checkpoint(trainer.default_root_dir))


@contextmanager
def _directly(trainer: Trainer) -> Iterator[None]:
    """Within the context, checkpoints go straight into their file, unless the trainer was given a way to write them."""
    usual = trainer.strategy.checkpoint_io
    if type(usual) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = DirectFile()
    try:
        yield
    finally:
        trainer.strategy.checkpoint_io = usual


def last_checkpoint(folder: str | Path) -> Path:
    """Where a run's checkpoint lies."""
    return Path(folder) / "checkpoints" / "last.ckpt"


def save_whole(trainer: Trainer, path: Path) -> None:
    """Save a checkpoint so that ``path`` is always a whole one: write beside it, flush to disk, move.

    Raises:
        InputError: If it cannot be written, as on a full disk; the one before stays.
    """
    beside = path.with_suffix(".tmp")
    with written(path, GO_ON):
        try:
            with _directly(trainer):
                trainer.save_checkpoint(beside, weights_only=False)
            if trainer.is_global_zero:
                with beside.open("rb") as file:
                    os.fsync(file.fileno())
                beside.replace(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
