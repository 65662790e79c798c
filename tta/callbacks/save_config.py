"""The configuration of a run, beside its results."""

from pathlib import Path

import yaml
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import SaveConfigCallback

from tta.report.render import write_atomically


class SaveRunConfig(SaveConfigCallback):
    """Write ``config.yaml`` into the run folder and hand its values to the loggers.

    Lightning's own writes into the logger's folder, which some loggers share between runs.
    """

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write and log; called on the first process only."""
        text = self.parser.dump(self.config, skip_none=False)
        write_atomically(Path(trainer.default_root_dir) / self.config_filename, text)
        for logger in trainer.loggers:
            logger.log_hyperparams(yaml.safe_load(text))
