"""The product of source training."""

from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info
from safetensors.torch import save_file


class SaveWeights(Callback):
    """After training write the backbone's weights, as of the last epoch, to ``weights.safetensors``."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, and say where."""
        backbone = getattr(pl_module, "backbone", None)
        if not trainer.is_global_zero or backbone is None:
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        path, beside = folder / "weights.safetensors", folder / "weights.tmp"
        save_file({name: tensor.clone().contiguous() for name, tensor in backbone.state_dict().items()}, beside)
        beside.replace(path)
        rank_zero_info(f"Weights: {path}")
