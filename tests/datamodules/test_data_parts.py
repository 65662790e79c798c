"""Every part under ``configs/data`` runs from the command line, on a tiny data set at the place that it names."""

import json
from pathlib import Path

import pytest
import yaml
from torchvision.datasets import CIFAR10

import datamodules
from datamodules.cifar import CLASSES
from datamodules.imagenet import imagenet_classes
from datamodules.stored_corruptions import STANDARD
from tta.cli import main

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
PARTS = sorted(file.stem for file in (CONFIGS / "data").glob("*.yaml"))
SOURCES = [part for part in PARTS if part.endswith("_source")]
STREAMS = [part for part in PARTS if part not in SOURCES]
STORED = [part for part in PARTS if not part.startswith("digits")]
PACS = ("domain_folders_source", "pacs", "pacs_source")
NUM_CLASSES = {"cifar100_c": 100, "imagenet_a": 200, "imagenet_r": 200, **dict.fromkeys(PACS, 7)}
PACS_CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
TENT = ("--config", str(CONFIGS / "adapter" / "tent.yaml"))
REPORTED = "pacs"
"""The one stream whose report is drawn, which takes most of a run's time: here, of domains that are no corruptions."""
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "1")


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    # Restores the path too, to which the command adds the folder it is given in.
    monkeypatch.syspath_prepend(str(ROOT))


def write_cifar_trees(data, write_images, write_cifar, write_cifar_corrupted, patch):
    write_cifar(data, CIFAR10, CLASSES["cifar10"], "labels", patch, train=10)
    for folder in ("CIFAR-10-C", "CIFAR-100-C"):
        write_cifar_corrupted(data / folder, (*STANDARD, "spatter"))
    for name in CLASSES["cifar10"]:
        write_images(data / "cifar10" / "train" / name, 10, name="{:04d}.jpg")
        write_images(data / "cifar10" / "test" / name, 1, name="{:04d}.jpg")


def write_imagenet_trees(data, write_images):
    for corruption in STANDARD:
        for wnid in imagenet_classes()[::999]:
            write_images(data / "ImageNet-C" / corruption / "5" / wnid, 1, 90, (224, 224), "ILSVRC2012_val_{:08d}.JPEG")
    for name in ("a", "r"):
        for wnid in imagenet_classes(f"imagenet_{name}")[::199]:
            write_images(data / f"imagenet-{name}" / wnid, 1, 90, (300, 260), "{}.jpg")
        (data / f"imagenet-{name}" / "README.txt").touch()
    for number, wnid in ((0, "n01440764"), (999, "n15075141")):
        write_images(data / "sketch" / wnid, 1, 90, (260, 300), "sketch_{}.JPEG")
        write_images(data / "imagenetv2-matched-frequency-format-val" / str(number), 1, 90, (500, 375), "{}.jpeg")


@pytest.fixture(scope="module")
def project(tmp_path_factory, write_images, write_cifar, write_cifar_corrupted):
    """A folder with every data set but that of the hub, each where its part looks for it."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        write_cifar_trees(folder / "data", write_images, write_cifar, write_cifar_corrupted, patch)
        write_imagenet_trees(folder / "data", write_images)
        for domain in ("art_painting", "cartoon", "photo", "sketch"):
            for name in PACS_CLASSES:
                write_images(folder / "data" / "PACS" / domain / name, 5, 90, (227, 227), "056_{:04d}.jpg")
        yield folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory, hub_split):
    """CIFAR-10 in the columns that it has on the hub, saved in a folder."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("hub")
    splits = {name: hub_split(100, CLASSES["cifar10"], "img", (32, 32)) for name in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(folder)
    return folder


@pytest.fixture
def place(request, part, monkeypatch):
    """Options that say where the data is: none, but that a folder stands for the hub."""
    if part.startswith("hugging_face"):
        return ("--data.path", str(request.getfixturevalue("hub")))
    monkeypatch.chdir(request.getfixturevalue("project"))
    return ()


def network(part):
    count = NUM_CLASSES.get(part, 1000 if part.startswith("imagenet") else 10)
    large = part.startswith("imagenet") or part in PACS
    arguments = ("--model.backbone.arguments", "{img_size: 224}") if large else ()
    name = ("--model.backbone.name", "test_vit" if large else "test_resnet")
    return ("--model.backbone", "models.TimmClassifier", *name, "--model.backbone.num_classes", str(count), *arguments)


def content(part):
    return yaml.safe_load((CONFIGS / "data" / f"{part}.yaml").read_text())["data"]


def domains_of(part):
    """The domains that the part names, else the default of its class, else the data set itself, all in full."""
    kind = getattr(datamodules, content(part)["class_path"].rsplit(".", 1)[1])
    given = content(part)["init_args"]
    names = given.get("domains", getattr(kind, "default_domains", [part]))
    return [f"{name}:{given['severity']}" if "severity" in given else name for name in names]


def run(command, part, folder, *words):
    data = ("--config", str(CONFIGS / "data" / f"{part}.yaml"), "--data.num_workers", "0")
    return main([command, *data, *words, *QUIET, "--trainer.default_root_dir", str(folder)])


@pytest.mark.parametrize("part", STREAMS)
def test_a_model_adapts_to_every_stream(part, place, tmp_path, monkeypatch):
    images = ("--data.samples_per_domain", "2", "--data.batch_size", "2", "--data.seed", "1")
    if part != REPORTED:
        monkeypatch.setattr("tta.callbacks.report.write_report", lambda *_: None)
    assert run("adapt", part, tmp_path, *network(part), *TENT, *place, *images) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["domains"] == domains_of(part)
    assert {name: row["samples"] for name, row in summary["per_domain"].items()} == dict.fromkeys(summary["domains"], 2)
    assert summary["seed"] == 1, "options of the base can be given on the command line"


@pytest.mark.parametrize("part", SOURCES)
def test_a_model_trains_on_every_source(part, place, tmp_path):
    limits = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--data.batch_size", "4")
    quiet = ("--trainer.enable_model_summary", "false")
    assert run("fit", part, tmp_path, *network(part), *place, *limits, *quiet) == 0
    assert (tmp_path / "weights.safetensors").is_file()


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """A working directory without data, on a machine that reaches no server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar.tar.gz")
    return tmp_path


@pytest.mark.parametrize("part", STORED)
def test_missing_data_is_one_line_that_says_where_and_how(part, nothing, monkeypatch, capsys):
    if part.startswith("hugging_face"):
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(nothing / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    given = content(part)["init_args"]
    given = given.get("source", {}).get("init_args", given)  # of a source in a source, what reads the files
    argument = next(name for name in ("root", "train_root", "path") if name in given)
    command, words = ("fit", ()) if part in SOURCES else ("adapt", TENT)
    assert run(command, part, nothing / "run", *network(part), *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    looked = given[argument] if argument == "path" else str(nothing / given[argument])
    assert line.startswith(f"tta: error: {argument}: ")
    assert looked in line
    assert any(remedy in line for remedy in ("download", "unpack", "save_to_disk"))
