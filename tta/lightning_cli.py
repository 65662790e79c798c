"""LightningCLI, one command at a time, each run in a folder of its own."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger
from yaml import YAMLError

import tta.callbacks  # noqa: F401  classes of an imported module can be given by their bare names
from tta.callbacks import SaveRunConfig, SaveWeights, last_checkpoint
from tta.errors import InputError
from tta.messages import one_line
from tta.modules import OnlineAdaptation
from tta.run_folder import choose_run_folder
from tta.trainer import StreamTrainer, check_checkpoint


class OneLineParser(LightningArgumentParser):
    """Lightning's parser with errors that fit one line."""

    words: Sequence[str] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what is wrong, in one line."""
        options = (option for action in self._actions for option in action.option_strings)
        raise InputError(one_line(message, type(self).words, options)) from ex


def data_sets_first(arguments: Sequence[str]) -> list[str]:
    """Let parts come in any order: a part that adds options to a data set has to be read after the one that names it.

    Args:
        arguments: Words of a command.

    Returns:
        The same words; where configuration files stand, those whose ``data`` has no ``class_path`` come last.
    """
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    places = [place + 1 for place, word in enumerate(words[:-1]) if word == "--config"]
    files = sorted((words[place] for place in places), key=_adds_to_a_data_set)
    for place, file in zip(places, files, strict=True):
        words[place] = file
    return words


def _adds_to_a_data_set(file: str) -> bool:
    try:
        part = OmegaConf.load(file)
    except (OSError, ValueError, YAMLError):
        return False  # the parser says what is wrong
    data = part.get("data") if isinstance(part, DictConfig) else None
    return isinstance(data, DictConfig) and "class_path" not in data


class RunCLI(LightningCLI):
    """A LightningCLI for one command, whose run has a folder of its own.

    Args:
        command: The subcommand.
        arguments: What comes after it.
    """

    def __init__(self, command: str, arguments: Sequence[str], **settings: Any) -> None:
        self.command = command
        arguments = data_sets_first(arguments)
        OneLineParser.words = arguments
        super().__init__(
            args=[command, *arguments],
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"save_to_log_dir": False, "overwrite": True},
            seed_everything_default=0,
            parser_kwargs={"parser_mode": "omegaconf+", "exit_on_error": False},
            parser_class=OneLineParser,
            auto_configure_optimizers=False,
            datamodule_class=LightningDataModule,
            subclass_mode_data=True,
            **settings,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the command at hand: building the parser of each takes time."""
        return {self.command: {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders"}}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse what was given, not what the process was started with."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Checkpoints resume; they never change the configuration."""

    def before_instantiate_classes(self) -> None:
        """Fix the run folder."""
        config = self.config[self.command]
        ckpt_path = config.get("ckpt_path")
        resumed = ckpt_path if self.command in ("adapt", "fit") else None
        folder = choose_run_folder(config.trainer.default_root_dir, self.stem(config), resumed)
        self.chosen_here = config.trainer.default_root_dir is None
        config.trainer.default_root_dir = folder
        if ckpt_path is not None and self.command != "adapt":
            path = last_checkpoint(folder) if resumed == "last" else Path(ckpt_path)
            check_checkpoint(path)
            config.ckpt_path = str(path)
            config.weights_only = True

    def instantiate_classes(self) -> None:
        """Build everything; what cannot be built leaves no empty run folder behind."""
        try:
            super().instantiate_classes()
        except Exception:
            if self.chosen_here:
                with suppress(OSError):  # not empty, or gone
                    Path(self.folder).rmdir()
            raise

    def stem(self, config: Any) -> str:
        """Name of the run folder."""
        raise NotImplementedError

    @property
    def folder(self) -> str:
        """The run folder."""
        return str(self.config[self.command].trainer.default_root_dir)


class OnlineCLI(RunCLI):
    """``adapt``, ``test`` and ``predict``: the online host, fixed, so that parts come in any order."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The data tells the class count."""
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")
        parser.set_defaults({"trainer.enable_model_summary": False})

    def stem(self, config: Any) -> str:
        """Command, adapter, stream, order and schedules."""
        data = config.data.init_args
        schedules = [data[name] for name in ("covariate", "labels") if data.get(name) is not None]
        parts = [config.model.adapter, config.data, *schedules]
        names = [part.class_path.rsplit(".", 1)[-1].lower() for part in parts]
        unsaid = [name for name in names if name not in ("sequential", "shuffled")]
        order = data.get("order")
        prefix = [] if self.command == "adapt" else [self.command]
        return "-".join([*prefix, *unsaid, *([order] if order else [])])

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """No logger unless one is given: CSV files are written anyway."""
        if not self.config_init[self.command].trainer.logger:
            kwargs["logger"] = False
        return super().instantiate_trainer(**kwargs)


class TrainingCLI(RunCLI):
    """``fit``: any training module."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The data tells the class count."""
        parser.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")
        parser.set_defaults({"model": {"class_path": "tta.modules.SourceTraining"}, "trainer.max_epochs": 20})

    def stem(self, config: Any) -> str:
        """Module and data."""
        return "-".join(part.class_path.rsplit(".", 1)[-1].lower() for part in (config.model, config.data))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """CSV curves, the last checkpoint and the weights, in the run folder."""
        config = self.config_init[self.command].trainer
        if not config.logger:
            kwargs["logger"] = CSVLogger(self.folder, name="", version="")
        checkpoint = ModelCheckpoint(Path(self.folder) / "checkpoints", save_last=True)
        kwargs["callbacks"] = [*(config.callbacks or []), checkpoint, SaveWeights()]
        return super().instantiate_trainer(**kwargs)


def adapt(arguments: Sequence[str]) -> None:
    """Run ``tta adapt``."""
    OnlineCLI("adapt", arguments, model_class=OnlineAdaptation, trainer_class=StreamTrainer)


def test(arguments: Sequence[str]) -> None:
    """Run ``tta test``."""
    OnlineCLI("test", arguments, model_class=OnlineAdaptation, trainer_class=StreamTrainer)


def predict(arguments: Sequence[str]) -> None:
    """Run ``tta predict``."""
    OnlineCLI("predict", arguments, model_class=OnlineAdaptation, trainer_class=StreamTrainer)


def fit(arguments: Sequence[str]) -> None:
    """Run ``tta fit``."""
    TrainingCLI("fit", arguments, model_class=LightningModule, subclass_mode_model=True)
