"""The product of training."""

from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info

from tta.companion import Companion, save_tensors
from tta.modules.sharding import whole_state


class SaveWeights(Callback):
    """After training write what it was for, as of the last epoch.

    The backbone's weights go to ``weights.safetensors``; what the module's ``companion()`` returns, if it has that
    method, goes to ``companion.safetensors``.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, and say where; parameters that processes share out are gathered by all of them first."""
        backbone = getattr(pl_module, "backbone", None)
        weights = None if backbone is None else whole_state(backbone)
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        if weights is not None:
            path = folder / "weights.safetensors"
            save_tensors(weights, path)
            rank_zero_info(f"Weights: {path}")
        make = getattr(pl_module, "companion", None)
        if make is not None:
            companion: Companion = make()
            companion.save(folder / "companion.safetensors")
            rank_zero_info(f"Companion: {folder / 'companion.safetensors'}")
