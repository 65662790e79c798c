"""Every shipped configuration part is small, and every stream runs with every adapter."""

from pathlib import Path

import pytest
import yaml

from tta.adapters import Adapter
from tta.adapters.registry import adapter_class
from tta.cli import main
from tta.matrix import plan, read_matrix


def adapter_of(file: Path) -> type[Adapter]:
    return adapter_class(yaml.safe_load(file.read_text())["model"]["adapter"]["class_path"].rsplit(".", 1)[-1])


ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
ADAPTERS = sorted(f.stem for f in (CONFIGS / "adapter").glob("*.yaml") if not adapter_of(f).facts.needs_companion)
"""Parts of methods that need no companion; the others run in the tests of what trains their companions."""
PER_IMAGE = sorted(f.stem for f in (CONFIGS / "adapter").glob("*.yaml") if not adapter_of(f).facts.needs_batch_norm)
"""Parts of methods that can do with a network without batch normalisation."""
FEW_VIEWS = {"cotta": ("--model.adapter.views_count", "2"), "memo": ("--model.adapter.count", "2")}
"""What methods that look at many views of every image are told to be quick, by the first word of their parts."""
MATRICES = sorted((CONFIGS / "compare").glob("*.yaml"))
PARTS = sorted(set(CONFIGS.rglob("*.yaml")) - set(MATRICES))
STREAMS = sorted(file.stem for file in (CONFIGS / "stream").glob("*.yaml"))
MODELS = sorted(file.stem for file in (CONFIGS / "model").glob("digits*.yaml"))
RESETS = sorted(file.stem for file in (CONFIGS / "resets").glob("*.yaml"))


def adapt(adapter: str, stream: str, model: str, folder: Path, *more: str) -> int:
    files = ("data/digits", f"stream/{stream}", f"model/{model}", f"adapter/{adapter}", "trainer/cpu", *more)
    parts = [word for file in files for word in ("--config", f"configs/{file}.yaml")]
    images = (
        "--data.domains",
        "[contrast, occlusion]",
        "--data.samples_per_domain",
        "120",
        "--data.source_samples",
        "32",
    )
    size = () if stream == "batch_size_one" else ("--data.batch_size", "16")
    quiet = ("--trainer.enable_progress_bar", "false", "--trainer.limit_val_batches", "1")
    limits = ("--trainer.limit_train_batches", "8", "--trainer.default_root_dir", str(folder))
    return main(["adapt", *parts, *images, *size, *quiet, *limits, *FEW_VIEWS.get(adapter.split("_")[0], ())])


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("file", PARTS, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_parts_are_small_and_explained(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 20
    assert isinstance(yaml.safe_load(text), dict)


@pytest.mark.parametrize("file", MATRICES, ids=lambda file: file.stem)
def test_matrices_name_what_is_there(file: Path) -> None:
    matrix = read_matrix(file)
    cells = plan(matrix)
    groups = len(matrix.models) * len(matrix.streams) * len(matrix.seeds)
    assert len(cells) >= groups * 2
    assert set() < set(matrix.viewed) <= {adapter.name for adapter in matrix.adapters} - {"source"}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_adapter_runs(adapter: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "_" in adapter:  # a method's other presets differ in values alone: one page of each method is drawn
        request.getfixturevalue("pages_without_figures")
    assert adapt(adapter, "label_sorted", "digits_resnet", tmp_path / "run") == 0
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize("stream", [stream for stream in STREAMS if stream != "batch_size_one"])
def test_every_stream_runs(stream: str, tmp_path: Path) -> None:
    assert adapt("sar", stream, "digits_resnet", tmp_path / "run") == 0


@pytest.mark.usefixtures("pages_without_figures")
@pytest.mark.parametrize("resets", RESETS)
def test_every_reset_protocol_runs(resets: str, tmp_path: Path) -> None:
    assert adapt("tent", "continual", "digits_resnet", tmp_path / "run", f"resets/{resets}") == 0


@pytest.mark.usefixtures("pages_without_figures")
@pytest.mark.parametrize("adapter", sorted(name for name in {*ADAPTERS} & {*PER_IMAGE} if "_" not in name))
def test_batch_size_one_runs_without_batch_statistics(adapter: str, tmp_path: Path) -> None:
    assert adapt(adapter, "batch_size_one", "digits_vit", tmp_path / "run") == 0


def test_batch_size_one_is_refused_where_statistics_need_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapt("tent", "batch_size_one", "digits_resnet", tmp_path / "run") == 2
    assert "a batch of 1 leaves one value per channel" in capsys.readouterr().err


@pytest.mark.parametrize("model", MODELS)
def test_source_training_runs(model: str, tmp_path: Path) -> None:
    parts = ("--config", "configs/data/digits_source.yaml", "--config", f"configs/model/{model}.yaml")
    limits = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1")
    quiet = ("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false")
    assert main(["fit", *parts, *limits, *quiet, "--trainer.default_root_dir", str(tmp_path)]) == 0
    assert (tmp_path / "weights.safetensors").is_file()


def test_tracking_works_without_key_or_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    parts = ("data/digits", "model/digits_resnet", "adapter/tent", "trainer/cpu", "trainer/wandb")
    files = [word for part in parts for word in ("--config", f"configs/{part}.yaml")]
    images = ("--data.samples_per_domain", "12", "--data.domains", "[contrast]", "--data.batch_size", "6")
    small = (*images, "--trainer.enable_progress_bar", "false")
    own = ("--trainer.logger.save_dir", str(tmp_path / "tracking"), "--trainer.default_root_dir", str(tmp_path / "run"))
    with caplog.at_level("INFO"):
        assert main(["adapt", *files, *small, *own]) == 0
    said = caplog.text
    assert "wandb: offline, no API key" in said
    stored = list((tmp_path / "tracking" / "wandb").glob("offline-run-*"))
    assert len(stored) == 1
    assert f"wandb: stored in {stored[0]}" in said
    assert list(stored[0].rglob("*.png")), "figures are logged"
    assert list(stored[0].rglob("*.table.json")), "the summary table is logged"
