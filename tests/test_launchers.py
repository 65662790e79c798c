"""Runs whose processes are started from outside, by the commands of ``docs/processes.md``.

The launchers' environments are imitated, since the launchers themselves take longer than all runs here.
"""

import csv
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import tta.lightning_cli  # noqa: F401  so that the processes need not import it
from models import TimmClassifier
from tests.pairs import by_lightning, fork
from tta.cli import main

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "processes.md").read_text()
QUIET = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false")

pytestmark = [pytest.mark.ddp, pytest.mark.usefixtures("pages_without_figures")]


def by_torchrun(rank: int, port: int) -> dict[str, str]:
    """The environment of a process of ``torchrun`` on one node."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    names = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {**{name: str(number) for name, number in numbers.items()}, **names}


def by_slurm(rank: int, port: int) -> dict[str, str]:
    """The environment of a task of ``srun`` on one node."""
    numbers = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": 0, "SLURM_NTASKS": 2, "SLURM_JOB_ID": 1}
    names = {"SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "sar", "MASTER_ADDR": "127.0.0.1"}
    return {**{name: str(number) for name, number in numbers.items()}, **names, "MASTER_PORT": str(port)}


LAUNCHERS: dict[str, Callable[[int, int], dict[str, str]]] = {"srun": by_slurm, "torchrun": by_torchrun}


def documented(start: str) -> list[str]:
    """Words of the page's command that starts so, after ``tta``."""
    command = re.search(rf"^{start} (?:.*\\\n)*.*$", PAGE, flags=re.MULTILINE)
    assert command is not None
    words = shlex.split(command[0].replace("\\\n", " ").replace('"$folder" $resume', "FOLDER"))
    return words[words.index("tta") + 1 :]


def command(folder: Path, words: list[str]) -> None:
    """A ``tta`` command in the folder of the project; its status is that of the process."""
    os.chdir(ROOT)
    sys.exit(main(words))


@pytest.fixture
def small(tmp_path: Path) -> tuple[str, ...]:
    """What makes a documented adaptation small, for two processes, and gives it source weights and a folder."""
    save_file(TimmClassifier("test_resnet", num_classes=10).state_dict(), tmp_path / "source.safetensors")
    stream = ("--data.samples_per_domain", "10", "--data.domains", "[contrast, invert]", "--data.batch_size", "5")
    files = ("--model.weights", f"{tmp_path}/source.safetensors", "--trainer.default_root_dir", f"{tmp_path}/run")
    return (*stream, *files, *QUIET, "--trainer.devices", "2", "--trainer.num_nodes", "1")


@pytest.mark.parametrize("launcher", sorted(LAUNCHERS))
def test_processes_of_a_launcher_adapt(launcher: str, small: tuple[str, ...], tmp_path: Path) -> None:
    status, said = fork(command, tmp_path, [*documented(launcher), *small], environment=LAUNCHERS[launcher])
    assert status == 0, said
    rows = list(csv.DictReader((tmp_path / "run" / "predictions.csv").open()))
    assert len({(row["index"], row["domain"]) for row in rows}) == len(rows) == 20
    assert {file.name for file in (tmp_path / "run").iterdir()} >= {"config.yaml", "metrics.csv", "summary.json"}


def test_a_folder_must_be_named_for_all_processes(small: tuple[str, ...], tmp_path: Path) -> None:
    words = [*documented("srun"), *small, "--trainer.default_root_dir", "null"]
    status, said = fork(command, tmp_path, words, environment=by_slurm)
    assert status == 2
    assert said.count("tta: error: processes that a launcher starts need one folder for all") == 2


def test_a_training_shares_its_parameters_out(tmp_path: Path) -> None:
    """As documented but for a smaller network and a plain optimiser."""
    smaller = ("--config", "configs/model/digits_resnet8.yaml", "--model.init_args.optimizer", "torch.optim.SGD")
    limits = ("--data.batch_size", "8", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1")
    folder = ("--trainer.default_root_dir", f"{tmp_path}/run", "--trainer.enable_model_summary", "false")
    words = [*documented("tta fit --config"), *smaller, *limits, *folder, *QUIET, "--trainer.limit_val_batches", "1"]
    status, said = fork(command, tmp_path, words, environment=by_lightning)
    assert status == 0, said
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert weights["linear.weight"].shape == (10, 64)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
