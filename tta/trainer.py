"""The trainer of online streams."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningDataModule, Trainer
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar
from pytorch_lightning.utilities import rank_zero_info

from tta.callbacks import BatchCheckpoint, Recorder, Report, last_checkpoint
from tta.errors import InputError
from tta.modules import OnlineAdaptation
from tta.modules.weights import read_torch_file
from tta.quiet import quiet

REFRESHES = 4
"""How often the progress bar may be drawn, a second; each time takes the processor from the model."""


class StreamTrainer(Trainer):
    """A Lightning ``Trainer`` with the defaults of an online stream: one pass, in order, every batch recorded.

    Records, a checkpoint counted in batches and the report are added to the callbacks unless given.

    Args:
        default_root_dir: The run folder: everything a run writes goes there.
        callbacks: Further callbacks.
        max_epochs: Passes over the stream; online means one.
        log_every_n_steps: Batches between two rows that loggers get; the CSV files have every one.
        num_sanity_val_steps: Validation batches before the stream.
        use_distributed_sampler: Lightning's sampler shuffles; the stream is sharded by its data module instead.
        enable_progress_bar: Whether to show how far the stream is: with Rich, unless the callbacks have another bar.
        **arguments: All other arguments of Lightning's ``Trainer``.
    """

    def __init__(
        self,
        *,
        default_root_dir: str | Path | None = None,
        callbacks: list[Callback] | Callback | None = None,
        max_epochs: int | None = 1,
        log_every_n_steps: int | None = 1,
        num_sanity_val_steps: int | None = 0,
        use_distributed_sampler: bool = False,
        enable_progress_bar: bool | None = None,
        **arguments: Any,  # noqa: ANN401  Lightning's own
    ) -> None:
        given = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks is not None else []
        own = (Recorder, Report, BatchCheckpoint)
        missing: list[Callback] = [kind() for kind in own if not any(isinstance(callback, kind) for callback in given)]
        if enable_progress_bar is not False and not any(isinstance(callback, ProgressBar) for callback in given):
            missing.append(RichProgressBar(refresh_rate=REFRESHES))
        super().__init__(
            default_root_dir=default_root_dir,
            callbacks=[*given, *missing],
            max_epochs=max_epochs,
            log_every_n_steps=log_every_n_steps,
            num_sanity_val_steps=num_sanity_val_steps,
            use_distributed_sampler=use_distributed_sampler,
            enable_progress_bar=enable_progress_bar,
            **arguments,
        )

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """Figures beside the progress bar: what was logged for it, and what the host shows of the last batch.

        The host does not log the latter: ``log`` moves every figure between devices, at every batch.
        """
        return {**super().progress_bar_metrics, **getattr(self.lightning_module, "shown", {})}

    def adapt(
        self, model: OnlineAdaptation, datamodule: LightningDataModule | None = None, ckpt_path: str | None = None
    ) -> None:
        """Adapt a source model online over a stream of shifted batches, and report whether it helped.

        Args:
            model: The host with backbone, adapter and weights.
            datamodule: The stream.
            ckpt_path: ``last`` or a file: go on with this very run where its last checkpoint left it.

        Raises:
            InputError: If there is no such checkpoint, or it cannot be read.
        """
        checkpoint = None if ckpt_path is None else self._checkpoint(ckpt_path)
        with quiet():
            self.fit(model, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)

    def _checkpoint(self, ckpt_path: str) -> Path | None:
        folder = Path(self.default_root_dir)
        path = last_checkpoint(folder) if ckpt_path == "last" else Path(ckpt_path)
        if ckpt_path == "last" and not path.exists() and (folder / "metrics.csv").exists():
            rank_zero_info(f"The run in {folder} stopped before its first checkpoint: it starts again")
            return None
        check_checkpoint(path)
        return path


def check_checkpoint(path: Path) -> None:
    """Make sure that a checkpoint is there and can be read, without running anything in it.

    Raises:
        InputError: If not.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint at {path.resolve()}: a run writes checkpoints/last.ckpt into its folder")
    read_torch_file(path, "checkpoint")
