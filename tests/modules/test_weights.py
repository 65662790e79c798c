"""Source weights from files of all kinds."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tta.errors import InputError
from tta.modules import load_weights


def network(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, classes))


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.", "module.", "network."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".ckpt"])
def test_prefixes_of_wrappers_and_kinds_of_files(prefix: str, suffix: str, tmp_path: Path) -> None:
    source, target, path = network(), network(), tmp_path / f"weights{suffix}"
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if suffix == ".ckpt" else state, path)
    assert not equal(source, target)
    load_weights(target, path)
    assert equal(source, target)


def test_counters_of_batches_may_be_missing(tmp_path: Path) -> None:
    source, target = network(), network()
    state = {name: tensor for name, tensor in source.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "old.pt")
    load_weights(target, tmp_path / "old.pt")
    assert equal(source, target)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_file_of_a_deeper_network_is_refused(prefix: str, tmp_path: Path) -> None:
    """Also where all that the model has is in it, in the right shapes."""
    deeper = nn.Sequential(*network(5), nn.Linear(5, 5))
    torch.save({prefix + name: tensor for name, tensor in deeper.state_dict().items()}, tmp_path / "deeper.pt")
    with pytest.raises(InputError, match=r"deeper\.pt does not fit Sequential: it has '3', one more than the model"):
        load_weights(network(5), tmp_path / "deeper.pt")


def test_keys_that_are_no_further_parts_are_left_unread(tmp_path: Path) -> None:
    source, target = network(), network()
    more = {"mean": torch.zeros(3), "ema.0.weight": torch.zeros(3), "0.extra": torch.zeros(3)}
    torch.save({**source.state_dict(), **more}, tmp_path / "more.pt")
    load_weights(target, tmp_path / "more.pt")
    assert equal(source, target)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("executed", "w"))


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Hostile()}, "hostile.pt")
    with pytest.raises(InputError, match=r"cannot read weights from hostile\.pt"):
        load_weights(network(), "hostile.pt")
    assert not Path("executed").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_spoilt_files_are_told(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"spoilt{suffix}"
    path.write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot read weights") as caught:
        load_weights(network(), path)
    assert "\n" not in str(caught.value)


def test_misfits_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no weights at .*nowhere\.pt"):
        load_weights(network(), tmp_path / "nowhere.pt")
    torch.save(network(classes=7).state_dict(), tmp_path / "seven.pt")
    with pytest.raises(InputError, match=r"'2\.weight' has shape \(7, 5\) in the file and \(3, 5\) in the model"):
        load_weights(network(), tmp_path / "seven.pt")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    with pytest.raises(InputError, match="8 of 8 keys are missing"):
        load_weights(network(), tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="holds a list"):
        load_weights(network(), tmp_path / "list.pt")
