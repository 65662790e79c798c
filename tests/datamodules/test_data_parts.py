from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from pytorch_lightning import LightningDataModule

from datamodules import SourceDataModule, StreamDataModule

PARTS = sorted(Path(__file__).parents[2].glob("configs/data/*.yaml"))


@pytest.fixture
def parser():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(LightningDataModule, "data")
    return parser


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_every_part_is_short_and_makes_its_datamodule(path, parser, tmp_path, monkeypatch):
    assert len(path.read_text().splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        (tmp_path / "data" / "cifar10" / split / "airplane").mkdir(parents=True)
    data = parser.instantiate_classes(parser.parse_args(["--config", str(path)])).data
    assert isinstance(data, SourceDataModule if path.stem.endswith("_source") else StreamDataModule)
    assert data.num_classes == (1 if path.stem.startswith("cifar10") else 10)


def test_options_of_the_base_can_be_given_on_the_command_line(parser):
    path = next(path for path in PARTS if path.stem == "digits")
    arguments = ["--config", str(path), "--data.init_args.batch_size=3", "--data.init_args.image_size=16"]
    data = parser.instantiate_classes(parser.parse_args(arguments)).data
    assert (data.batch_size, data.image_size) == (3, 16)


def test_a_missing_tree_is_reported_when_the_part_is_used(parser, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = next(path for path in PARTS if path.stem == "cifar10_folder")
    # The parser reports an InputError inside its own ValueError.
    with pytest.raises(ValueError, match=r"'data/cifar10/test' is no folder .*ROOT/CLASS/IMAGE"):
        parser.instantiate_classes(parser.parse_args(["--config", str(path)]))
