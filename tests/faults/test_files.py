"""Files that are cut short, damaged or hostile are refused in one line, and nothing in them is run."""

import copy
import multiprocessing
import os
import pickle
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tta
from tta.cli import main
from tta.companion import Companion
from tta.modules.weights import load_weights
from tta.trainer import check_checkpoint


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """What there would be if a hostile file had its way."""
    return tmp_path / "it was run"


def zipped(path: Path, trace: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "more": Hostile(trace)}, path)


def legacy(path: Path, trace: Path) -> None:
    torch.save({"more": Hostile(trace)}, path, _use_new_zipfile_serialization=False)


def pickled(path: Path, trace: Path) -> None:
    path.write_bytes(pickle.dumps({"more": Hostile(trace)}))


def good(path: Path) -> bytes:
    torch.save({"weight": torch.zeros(1000)}, path)
    return path.read_bytes()


def cut_short(path: Path, trace: Path) -> None:
    path.write_bytes(good(path)[:2000])


def empty(path: Path, trace: Path) -> None:
    path.touch()


def flipped(path: Path, trace: Path) -> None:
    content = bytearray(good(path))
    content[content.rindex(bytes(500))] ^= 1  # one bit of a weight
    path.write_bytes(content)


BAD: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "zipped": (zipped, r"it asks to run posix\.mkdir, which was refused"),
    "legacy": (legacy, r"it asks to run posix\.mkdir, which was refused"),
    "pickled": (pickled, "it is no file that torch.save wrote, or it holds more than tensors and plain values"),
    "cut short": (cut_short, "it is cut short or damaged: take another copy of it, or an older one"),
    "empty": (empty, "it is cut short or damaged: take another copy of it, or an older one"),
    "flipped": (flipped, r"it is damaged \(.*data/0\): take another copy of it"),
}

READERS: dict[str, Callable[[Path], Any]] = {
    "checkpoint": check_checkpoint,
    "weights": lambda path: load_weights(nn.Linear(2, 2), path),
}


def test_the_hostile_files_would_do_harm(tmp_path: Path) -> None:
    for number, make in enumerate((zipped, legacy)):
        trace = tmp_path / f"trace {number}"
        make(tmp_path / "bad.ckpt", trace)
        torch.load(tmp_path / "bad.ckpt", weights_only=False)
        assert trace.exists()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(name: str, reader: str, tmp_path: Path, trace: Path) -> None:
    make, message = BAD[name]
    path = tmp_path / "bad.ckpt"
    make(path, trace)
    with pytest.raises(tta.InputError, match=message) as caught:
        READERS[reader](path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(path) in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["zipped", "legacy", "pickled", "cut short", "empty"])
def test_bad_companions_are_refused(name: str, tmp_path: Path, trace: Path) -> None:
    path = tmp_path / "companion.safetensors"
    BAD[name][0](path, trace)
    with pytest.raises(tta.InputError, match="cannot read a companion from") as caught:
        Companion.load(path, "ITTA")
    assert len(str(caught.value).splitlines()) == 1
    assert not trace.exists()


def test_the_state_of_an_online_model_needs_no_trust(tmp_path: Path, trace: Path) -> None:
    def model() -> tta.OnlineModel:
        torch.manual_seed(0)
        return tta.online(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3)), "tent")

    online, loaded = model(), model()
    online(torch.rand(3, 4))
    state = online.state_dict()
    torch.save(state, tmp_path / "state.pt")
    loaded.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(online.parameters(), loaded.parameters(), strict=True))
    torch.save({**state, "more": Hostile(trace)}, tmp_path / "state.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(tmp_path / "state.pt", weights_only=True)
    assert not trace.exists()


def small(width: int = 4, *more: nn.Module, method: str = "tent") -> tta.OnlineModel:
    network = nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width), nn.Linear(width, 3), *more)
    return tta.online(network, method, lr=0.1)


OTHERS: dict[str, tuple[Callable[[], tta.OnlineModel], str]] = {
    "wider": (lambda: small(8), r"'model\.0\.weight' is \(8, 4\) in the state and \(4, 4\) here: build the"),
    "deeper": (
        lambda: small(4, nn.Linear(3, 3)),
        r"of 2 names .* is 'model\.3\.bias', which only the state has: build",
    ),
    "other method": (
        lambda: small(method="sar"),
        r"of 2 names .* is '.*adapter\.entropy_ema', which only the state has",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("part", [False, True])
def test_an_online_model_takes_a_state_of_its_own_kind_only(other: str, part: bool) -> None:
    """Alone or as a part of a module, nothing of another kind's state is taken over, the optimiser's neither."""
    online, (make, message) = small(), OTHERS[other]
    stranger = make()
    for model in (online, stranger):
        model(torch.rand(6, 4))
    before = copy.deepcopy(online.state_dict())
    hosts = [nn.Sequential(model) if part else model for model in (online, stranger)]
    with pytest.raises(tta.InputError, match=message.replace("'model", "'0.model" if part else "'model")) as caught:
        hosts[0].load_state_dict(hosts[1].state_dict())
    assert len(str(caught.value).splitlines()) == 1
    after = online.state_dict()
    assert before.pop("_extra_state")["optimizer"]["state"].keys() == after["_extra_state"]["optimizer"]["state"].keys()
    for state in (before, after):
        state.pop("_extra_state", None)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_companion_that_finds_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "companion.safetensors"
    Companion("ITTA", {"weight": torch.ones(4)}).save(path)

    def without_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            Companion("ITTA", {"weight": torch.zeros(4000)}).save(path)
        except tta.InputError as error:
            (tmp_path / "said").write_text(str(error))

    child = multiprocessing.get_context("fork").Process(target=without_room)
    child.start()
    child.join()
    assert re.fullmatch(rf"cannot write {path} \(.*File too large.*\): once it can .*", (tmp_path / "said").read_text())
    assert torch.equal(Companion.load(path, "ITTA").tensors["weight"], torch.ones(4))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["companion.safetensors", "said"]


COMMANDS = ("adapt", "test", "fit", "adapt --model.weights")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_runs_nothing(
    command: str, tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    zipped(path, trace)
    word, _, option = command.partition(" ")
    method = () if word == "fit" else ("--config", "configs/adapter/tent.yaml")
    data = "configs/data/digits_source.yaml" if word == "fit" else "configs/data/digits.yaml"
    parts = ("--config", data, "--config", "configs/model/digits_resnet.yaml", *method, "--trainer.accelerator", "cpu")
    own = ("--trainer.default_root_dir", str(tmp_path / "run"))
    assert main([word, *parts, *own, option or "--ckpt_path", str(path)]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("tta: error", "Traceback"))]
    assert len(said) == 1
    assert "it asks to run posix.mkdir, which was refused" in said[0]
    assert not trace.exists()
