"""``tta stream``: a look at a stream before anything is adapted to it."""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pytorch_lightning import LightningDataModule
from pytorch_lightning.cli import LightningArgumentParser
from rich.console import Console

from tta.errors import CommandParser, InputError
from tta.lightning_cli import OnlineCLI
from tta.modules import OnlineAdaptation
from tta.report.stream import Stream, strip_positions, summary_lines
from tta.report.stream_figure import draw_stream
from tta.trainer import StreamTrainer

FORMATS = (".png", ".svg", ".pdf")

DESCRIPTION = """\
Draw a stream before anything is adapted to it: its domains and their severities, the mix of classes over time, and
sample images. Prints a summary too. No model is built and no weights are read."""

EPILOG = """\
Everything else is as in 'tta adapt': the same configuration files and the same flags. Parts about the model, the
optimiser and the trainer are accepted and left aside. Put 'stream' in the place of 'adapt':

  tta stream --config configs/data/digits.yaml --data.order mixed

'tta adapt --data.help CLASS' explains the options of a data module."""


class StreamCLI(OnlineCLI):
    """The command line of ``adapt`` of which only the data module is built."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Stand in for the parts of the model, which are required otherwise; nothing builds them."""
        super().add_arguments_to_parser(parser)
        parser.set_defaults({"model.backbone": {"class_path": "torch.nn.Identity"}})
        parser.set_defaults({"model.adapter": {"class_path": "tta.adapters.Source"}})

    def before_instantiate_classes(self) -> None:
        """Leave the run folders alone."""

    def instantiate_classes(self) -> None:
        """Build the data module."""
        parser = LightningArgumentParser(parser_mode="omegaconf+", exit_on_error=False)
        parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
        config = parser.parse_object({"data": self.config[self.command].data})
        self.datamodule = parser.instantiate_classes(config).data

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""


def stream(arguments: Sequence[str]) -> None:
    """Draw the stream of a configuration, print its summary, and say where the picture is.

    Args:
        arguments: Those of ``tta adapt``, and ``--output``.

    Raises:
        InputError: If an argument is wrong, the data module has no plan, or the picture cannot be written.
    """
    parser = CommandParser(
        prog="tta stream",
        usage="tta stream --config FILE [--config FILE ...] [--output FILE] [options of tta adapt]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("stream.png"),
        help="picture to write, .png, .svg or .pdf (default: stream.png here)",
    )
    options, others = parser.parse_known_args(arguments)
    output = options.output
    if output.suffix.lower() not in FORMATS:
        raise InputError(f"--output: {str(output)!r} is no picture that can be written: end it in {', '.join(FORMATS)}")
    cli = StreamCLI("adapt", others, model_class=OnlineAdaptation, trainer_class=StreamTrainer)
    told = read_stream(cli.datamodule)
    save(draw_stream(told), output)
    console = Console(highlight=False, markup=False)
    for line in (*summary_lines(told), f"Picture: {output}"):
        console.print(line, soft_wrap=True)


def read_stream(datamodule: LightningDataModule) -> Stream:
    """Ask a data module what its stream shows, and for a few of its images.

    Args:
        datamodule: One with ``plan``, ``severities`` and ``images_at``; its ``setup`` is called.

    Raises:
        InputError: If it has no plan of a stream, or if the stream is empty.
    """
    name = type(datamodule).__name__
    if not hasattr(datamodule, "plan"):
        raise InputError(f"data: {name} is no stream, it has no plan(): give the data module that 'tta adapt' takes")
    module: Any = datamodule
    module.setup("fit")
    plan = module.plan()
    if len(plan.label) == 0:
        raise InputError(f"data: the stream of {name} is empty: check its folder, domains and label schedule")
    shown = strip_positions(len(plan.label))
    return Stream(
        name=name,
        order=module.order,
        boundaries="none" if module.order == "mixed" else module.boundaries,
        covariate=repr(module.covariate),
        labels=repr(module.labels),
        seed=module.seed,
        batch_size=module.batch_size,
        class_names=tuple(map(str, module.class_names)),
        index=plan.index,
        label=plan.label,
        condition=plan.condition.astype(np.int64),
        domain=plan.domain.astype(np.int64),
        starts=plan.starts,
        conditions=tuple(plan.conditions),
        domains=tuple(plan.domains),
        severities=tuple(module.severities()),
        shown=shown,
        images=np.moveaxis(module.images_at(shown).numpy(), 1, -1),
    )


def save(figure: Figure, path: Path) -> None:
    """Write a figure, and its folder where there is none.

    Raises:
        InputError: If the path cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
            figure.savefig(path, dpi=150)
    except OSError as error:
        raise InputError(f"--output: cannot write {path} ({error.strerror}): choose another path") from error
