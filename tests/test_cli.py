"""The command line, as people call it."""

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from tta.cli import main

ROOT = Path(__file__).parent.parent
PARTS = ("--config", "configs/data/digits.yaml", "--config", "configs/model/digits_resnet.yaml")
SMALL = ("--data.samples_per_domain", "20", "--data.domains", "[contrast, invert]", "--data.batch_size", "10")
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu")

Call = Callable[..., int]

undrawn = pytest.mark.usefixtures("pages_without_figures")


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def adapt(tmp_path: Path) -> Call:
    def call(*words: str, folder: str = "run", adapter: str = "sar") -> int:
        own = ("--config", f"configs/adapter/{adapter}.yaml", "--trainer.default_root_dir", str(tmp_path / folder))
        return main(["adapt", *PARTS, *SMALL, *QUIET, *own, *words])

    return call


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    words = ["--trainer.max_epochs", "1", "--trainer.enable_model_summary", "false", *QUIET]
    network = PARTS[2:]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        data = ("--config", "configs/data/digits_source.yaml")
        assert main(["fit", *data, *network, *words, "--trainer.default_root_dir", str(folder)]) == 0
    return folder / "weights.safetensors"


def test_fit_writes_weights_curves_and_checkpoints(weights: Path) -> None:
    assert weights.is_file()
    assert "val/accuracy" in (weights.parent / "metrics.csv").read_text().splitlines()[0]
    assert (weights.parent / "checkpoints" / "last.ckpt").is_file()


def test_adapt_leaves_a_complete_run_folder(adapt: Call, weights: Path, tmp_path: Path) -> None:
    assert adapt("--model.weights", str(weights)) == 0
    names = {file.name for file in (tmp_path / "run").iterdir()}
    assert names >= {"config.yaml", "metrics.csv", "predictions.csv", "timing.csv", "summary.json", "report.html"}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["adapter"], summary["stream"], summary["order"]) == ("SAR", "DigitsStream", "continual")
    assert summary["samples"] == 40
    assert summary["num_classes"] == 10


@undrawn
def test_a_lightning_checkpoint_serves_as_weights(adapt: Call, weights: Path) -> None:
    assert adapt("--model.weights", str(weights.parent / "checkpoints" / "last.ckpt"), adapter="source") == 0


@undrawn
def test_the_saved_configuration_repeats_the_run(adapt: Call, weights: Path, tmp_path: Path) -> None:
    assert adapt("--model.weights", str(weights), "--model.optimizer.lr", "0.01") == 0
    again = str(tmp_path / "again")
    config = str(tmp_path / "run" / "config.yaml")
    assert main(["adapt", "--config", config, "--trainer.default_root_dir", again]) == 0
    for name in ("metrics.csv", "predictions.csv"):
        assert (tmp_path / "run" / name).read_text() == (tmp_path / "again" / name).read_text()


@undrawn
def test_parts_compose_in_any_order(tmp_path: Path, weights: Path) -> None:
    parts = ["configs/adapter/tent.yaml", "configs/model/digits_resnet.yaml", "configs/data/digits.yaml"]
    files = [word for part in parts for word in ("--config", part)]
    folder = str(tmp_path / "run")
    assert main(["adapt", *files, *SMALL, *QUIET, "--trainer.default_root_dir", folder]) == 0


@undrawn
def test_report_draws_again_and_compares(
    adapt: Call, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for adapter in ("source", "tent"):
        assert adapt("--model.weights", str(weights), folder=adapter, adapter=adapter) == 0
    (tmp_path / "tent" / "report.html").unlink()
    assert main(["report", str(tmp_path / "tent")]) == 0
    assert (tmp_path / "tent" / "report.html").is_file()
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "source"), str(tmp_path / "tent"), "--output", str(page)]) == 0
    assert page.is_file()
    assert "Tent" in capsys.readouterr().out


BAD_INPUT: dict[str, tuple[tuple[str, ...], str]] = {
    "adapter": (
        ("--model.adapter", "Sarr"),
        "unknown adapter 'Sarr': choose from BNStats, CMF, CoTTA, DeYO, EATA, ETA, FrozenViews, Guard, ITTA, "
        "LabelShift, LAME, MEMO, MetaDMoE, NOTE, RDumb, ROID, RoTTA, SADE, SAR, SHOT, Source, T3A, Tent, or give an "
        "import path",
    ),
    "adapter argument": (("--model.adapter.rhoo", "1"), "SAR takes no option 'rhoo': choose from margin, rho, reset_"),
    "type": (("--model.adapter.rho", "big"), "rho: expected a value of type float, got 'big'"),
    "value": (("--model.adapter.margin", "-1"), "margin=-1.0: need margin > 0"),
    "option": (("--model.widow", "3"), "unknown option --model.widow: did you mean --model.window?"),
    "corruption": (
        ("--data.domains", "[fogg]"),
        "'fogg' is unknown; choose one of affine, brightness, clean, contrast",
    ),
    "severity": (("--data.severity", "9"), "severity"),
    "order": (("--data.order", "sideways"), "sideways"),
    "layer type": (("--model.adapter.select.types", "[nrom]"), "unknown layer type 'nrom': choose from batch_norm"),
    "no such layer": (
        ("--model.adapter.select.types", "[layer_norm]"),
        "no layer to adapt: Select(types=['layer_norm']",
    ),
    "class": (("--data", "no.Thing"), "data: unknown class 'no.Thing' (No module named 'no')"),
    "config file": (("--config", "no.yaml"), "File does not exist"),
    "weights": (("--model.weights", "no.safetensors"), "no weights at"),
    "spoilt weights": (("--model.weights", "README.md"), "cannot read weights from README.md"),
    "class count": (("--model.backbone.num_classes", "7"), "output of shape (1, 7) and the data has 10 classes"),
    "network": (("--model.backbone.name", "resnet19"), "unknown timm model 'resnet19'"),
    "image shape": (
        ("--model.backbone.name", "test_vit", "--data.image_size", "31"),
        "the backbone cannot take images of shape (3, 31, 31)",
    ),
    "empty stream": (("--data.samples_per_domain", "0"), "samples_per_domain"),
    "protocol": (("--model.protocol", "sometimes"), "sometimes"),
    "resume nothing": (("--ckpt_path", "last"), "no checkpoint at"),
    "spoilt checkpoint": (("--ckpt_path", "README.md"), "cannot read checkpoint README.md"),
    "no batch norm": (
        ("--config", "configs/model/digits_vit.yaml", "--config", "configs/adapter/bnstats.yaml"),
        "BNStats needs batch normalisation and the model has 13 layer_norm",
    ),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line_and_status_two(name: str, adapt: Call, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = BAD_INPUT[name]
    assert adapt(*words) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("tta: error:")]
    assert len(lines) == 1, error
    assert message in lines[0]
    assert error.splitlines()[-1] == lines[0]
    assert "Traceback" not in error


def test_required_parts_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapt", *PARTS[:2]]) == 2
    assert "model.backbone" in capsys.readouterr().err
    assert main(["adapte"]) == 2
    assert "unknown command 'adapte': choose from fit, adapt" in capsys.readouterr().err


@undrawn
def test_a_finished_run_is_not_overwritten(adapt: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt() == 0
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    assert adapt() == 2
    assert "holds a run already: go on with it by --ckpt_path last" in capsys.readouterr().err
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before


@undrawn
def test_runs_without_a_folder_get_numbered_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [str(ROOT / word) if word.startswith("configs") else word for word in PARTS]
    own = ("--config", str(ROOT / "configs/adapter/source.yaml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    for _ in range(2):
        assert main(["adapt", *words, *SMALL, *QUIET, *own]) == 0
    assert sorted(folder.name for folder in Path("runs").iterdir()) == [
        "source-digitsstream-continual",
        "source-digitsstream-continual-2",
    ]


def test_traceback_when_asked_for(adapt: Call) -> None:
    with pytest.raises(ValueError, match=r"margin=-1\.0"):
        adapt("--model.adapter.margin", "-1", "--traceback")


@undrawn
def test_seed_and_checkpoint_never_change_the_configuration(adapt: Call, tmp_path: Path) -> None:
    assert adapt("--model.window", "30") == 0
    stored = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert "hyper_parameters" not in stored


@pytest.mark.parametrize("words", [["--help"], ["adapt", "--help"], ["report", "--help"]])
def test_help_explains(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if len(words) == 1:
        assert main(words) == 0
    else:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 0
    text = capsys.readouterr().out
    expected = {
        "--help": "adapt a source model online",
        "adapt": "When to go back to the source",
        "report": "compares several",
    }
    assert expected[words[0]] in " ".join(text.split())


def test_module_and_script_start(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "tta", "--help"], capture_output=True, text=True, check=True)
    assert "usage: tta COMMAND" in done.stdout


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_unreadable_image_is_named_in_one_line_also_by_a_worker(
    workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32, 32), (40 * number, 0, 0)).save(tmp_path / "tree" / name / f"{number}.png")
    broken = tmp_path / "tree" / "dog" / "2.png"
    broken.write_bytes(b"no image")
    data = ("--data", "datamodules.ImageFolderStream", "--data.root", str(tmp_path / "tree"), "--data.batch_size", "4")
    network = ("--model.backbone", "models.TimmClassifier", "--model.backbone.name", "test_resnet")
    model = (*network, "--model.backbone.num_classes", "2", "--model.adapter", "tta.adapters.Source")
    own = ("--data.num_workers", workers, "--trainer.default_root_dir", str(tmp_path / "run"))
    assert main(["adapt", *data, *model, *QUIET, *own]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("tta: error", "Traceback"))]
    assert len(said) == 1
    assert said[0].startswith(f"tta: error: image: '{broken}' cannot be read (")


class CutOff(Dataset[int]):
    """Fails as the queue to a worker does that dies between an announcement and its batch."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


@pytest.mark.parametrize(("batches", "status"), [(DataLoader(CutOff()), 2), (CutOff(), None)])
def test_a_worker_that_dies_as_it_hands_over_a_batch_is_told(
    batches: DataLoader[int] | CutOff, status: int | None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("tta.cli._run", lambda command, words: list(batches))
    if status is None:  # a connection that is no loader's matter
        with pytest.raises(ConnectionResetError):
            main(["adapt"])
        return
    assert main(["adapt"]) == status
    said = capsys.readouterr().err
    assert said.startswith(
        "tta: error: a DataLoader worker died while it handed over a batch (Connection reset by peer)"
    )
    assert said.endswith("go on with --ckpt_path last\n")


def test_a_run_that_cannot_be_built_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = ("--data", "datamodules.ImageFolderStream", "--data.root", "nowhere")
    model = ("--model.backbone", "torch.nn.Identity", "--model.adapter", "tta.adapters.Source")
    assert main(["adapt", *data, *model, *QUIET]) == 2
    assert list((tmp_path / "runs").iterdir()) == []
