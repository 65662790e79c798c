"""``tta stream``, as people call it."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import datamodules
from tta.cli import main
from tta.stream_cli import read_stream

ROOT = Path(__file__).parent.parent
DATA = ("--config", "configs/data/digits.yaml")
CORRELATED = ("--config", "configs/stream/correlated.yaml")
SMALL = ("--data.samples_per_domain", "20", "--data.domains", "[contrast, invert]", "--data.batch_size", "10")

Call = Callable[..., int]


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def stream(tmp_path: Path) -> Call:
    def call(*words: str, output: str = "stream.png") -> int:
        return main(["stream", *DATA, *SMALL, "--output", str(tmp_path / output), *words])

    return call


def test_writes_a_picture_and_a_summary(stream: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stream(output="new/folder/picture.png") == 0
    picture = tmp_path / "new" / "folder" / "picture.png"
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > 1000
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "DigitsStream: 40 samples in 4 batches of 10 (batch_size 10)"
    assert lines[1] == "Order: continual, boundaries known, seed 0"
    assert "Domains: 2 (contrast:5, invert:5)" in lines
    assert lines[-1] == f"Picture: {picture}"


@pytest.mark.parametrize(("name", "start"), [("a.svg", b"<?xml"), ("a.pdf", b"%PDF"), ("a.PNG", b"\x89PNG")])
def test_formats(name: str, start: bytes, stream: Call, tmp_path: Path) -> None:
    assert stream(output=name) == 0
    assert (tmp_path / name).read_bytes().startswith(start)


def test_takes_all_of_adapt_and_builds_no_model(
    stream: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr("torch.nn.Module.__init__", refuse)
    parts = ("--config", "configs/model/digits_resnet.yaml", "--config", "configs/adapter/sar.yaml")
    flags = ("--model.weights", "nowhere.safetensors", "--model.optimizer.lr", "0.1", "--trainer.accelerator", "cpu")
    assert stream(*parts, *flags, "--trainer.default_root_dir", str(tmp_path / "run"), "--ckpt_path", "last") == 0
    assert "DigitsStream: 40 samples" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_schedules_are_told(stream: Call, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--data.covariate", "datamodules.Gradual", "--data.labels", "datamodules.Sorted")
    assert stream(*words, "--data.boundaries", "hidden") == 0
    out = capsys.readouterr().out
    assert "Covariate schedule: Gradual(severities=" in out
    assert "Label schedule: Sorted()" in out
    assert "boundaries hidden" in out
    assert "Domains: 2 (contrast, invert)" in out
    assert stream("--data.order", "mixed") == 0
    assert "Order: mixed, boundaries none" in capsys.readouterr().out


def test_the_default_is_a_file_here_that_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stream.png").write_text("old")
    assert main(["stream", "--config", str(ROOT / DATA[1]), *SMALL]) == 0
    assert (tmp_path / "stream.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.endswith("Picture: stream.png\n")
    assert [file.name for file in tmp_path.iterdir()] == ["stream.png"]


BAD_INPUT: dict[str, tuple[Sequence[str], str]] = {
    "format": (
        ("--output", "a.jpg"),
        "--output: 'a.jpg' is no picture that can be written: end it in .png, .svg, .pdf",
    ),
    "no output": (("--output",), "expected one argument"),
    "unwritable": (("--output", "README.md/a.png"), "--output: cannot write README.md/a.png"),
    "order": (("--data.order", "sideways"), "sideways"),
    "option": (("--data.ordr", "mixed"), "takes no option 'ordr'"),
    "unknown option": (("--ouput", "a.png"), "unknown option --ouput"),
    "corruption": (("--data.domains", "[fogg]"), "'fogg'"),
    "no plan": (("--data", "datamodules.Digits"), "data: Digits is no stream, it has no plan()"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line_and_status_two(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = BAD_INPUT[name]
    parts = () if name == "no plan" else (*DATA, *SMALL)
    assert main(["stream", *parts, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tta: error:")
    assert error.count("\n") == 1
    assert message in error


def test_help_explains(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["stream", "--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--output" in text
    assert "No model is built" in text
    assert "tta stream --config configs/data/digits.yaml" in text
    assert main(["--help"]) == 0
    assert "stream draw a stream" in " ".join(capsys.readouterr().out.split())


def test_images_are_those_of_the_loader() -> None:
    options = {"domains": ["contrast", "invert"], "samples_per_domain": 20, "batch_size": 10}
    told = read_stream(datamodules.DigitsStream(**options))
    module = datamodules.DigitsStream(**options)
    module.setup("fit")
    batches = list(module.train_dataloader())
    images = torch.cat([batch["image"] for batch in batches]).movedim(1, -1).numpy()
    np.testing.assert_array_equal(told.images, images[told.shown])
    np.testing.assert_array_equal(told.label, torch.cat([batch["label"] for batch in batches]).numpy())


def _documented() -> list[str]:
    rows = [line for line in (ROOT / "docs" / "streams.md").read_text().splitlines() if line.startswith("|")]
    return [cell.strip(" `") for row in rows for cell in row.split("|")[1:-1] if re.match(r" `\w+: ", cell)]


@pytest.mark.parametrize("line", _documented())
def test_every_line_of_the_documentation_makes_a_stream(line: str, stream: Call, tmp_path: Path) -> None:
    file = tmp_path / "line.yaml"
    file.write_text(f"data:\n  class_path: datamodules.DigitsStream\n  init_args:\n    {line}\n")
    assert stream("--config", str(file), "--data.samples_per_domain", "200") == 0


def test_the_documentation_covers_every_schedule() -> None:
    told = " ".join(_documented())
    for base in (datamodules.CovariateSchedule, datamodules.LabelSchedule):
        for schedule in base.__subclasses__():
            assert f"datamodules.{schedule.__name__}" in told


@pytest.mark.parametrize(
    "words",
    [(*DATA, *CORRELATED), (*CORRELATED, *DATA), ("--config=configs/stream/correlated.yaml", *DATA)],
    ids=["after", "before", "before, with an equals sign"],
)
def test_a_stream_part_stands_before_or_after_its_data_set(
    words: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stream", *words, *SMALL, "--output", str(tmp_path / "stream.png")]) == 0
    assert "Dirichlet(gamma=0.1" in capsys.readouterr().out


def test_of_two_stream_parts_the_later_one_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*CORRELATED, *DATA, "--config", "configs/stream/label_sorted.yaml")
    assert main(["stream", *words, *SMALL, "--output", str(tmp_path / "stream.png")]) == 0
    assert "Sorted()" in capsys.readouterr().out
