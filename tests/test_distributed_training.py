"""Two processes share a training."""

import re
from pathlib import Path

import pytest
import torch
from pytorch_lightning import seed_everything
from safetensors.torch import load_file

from tests.every_training import REFUSED, SHARDED, TRAININGS, all_trainings, train
from tests.pairs import different, outcomes, together
from tta.modules import load_weights

pytestmark = pytest.mark.ddp

SAME_AS_ONE = {"aggregator": 16, "label shift": 8, "source": 16}
"""Trainings of which two processes make what one does, and the batch of that one."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a run of each training, all of one pair of processes."""
    return together(all_trainings, tmp_path_factory.mktemp("trained"))


@pytest.mark.parametrize("name", sorted(TRAININGS))
def test_processes_stay_in_step(name: str, shared: Path) -> None:
    first, second = outcomes(shared / name)
    seed_everything(0)
    untrained, _ = TRAININGS[name](8)
    parameters = {key for key, _ in untrained.named_parameters()}
    assert parameters & different(first["state"], second["state"]) == set()
    assert parameters & different(first["state"], untrained.state_dict()) != set()
    assert first["logged"].keys() == second["logged"].keys()
    for figure, value in first["logged"].items():
        assert torch.equal(value, second["logged"][figure]), figure
    weights = load_file(shared / name / "weights.safetensors")
    assert all(torch.equal(first["state"][f"backbone.{key}"], value) for key, value in weights.items())


@pytest.mark.parametrize("name", sorted(set(TRAININGS) - {"label shift"}))
def test_no_image_is_shown_twice_in_an_epoch(name: str, shared: Path) -> None:
    first, second = (final["seen"] for final in outcomes(shared / name))
    assert len(first) == len(second) > 0
    assert len({*first, *second}) == len(first) + len(second)


@pytest.mark.parametrize(("name", "batch_size"), sorted(SAME_AS_ONE.items()))
def test_two_processes_make_what_one_does(name: str, batch_size: int, shared: Path, tmp_path: Path) -> None:
    together, other = outcomes(shared / name)
    module, alone = train(tmp_path, TRAININGS[name], batch_size)
    assert {*together["seen"], *other["seen"]} == {*alone["seen"]}
    for key, value in module.state_dict().items():
        assert torch.allclose(together["state"][key], value, rtol=0, atol=1e-6), key
    for figure, value in alone["logged"].items():
        assert torch.allclose(together["logged"][figure], value, rtol=1e-4), figure


@pytest.mark.parametrize("name", SHARDED)
def test_processes_that_hold_half_of_the_parameters_make_the_same(name: str, shared: Path) -> None:
    """All of it comes together in ``weights.safetensors``, which fits the network."""
    halves, wholes = outcomes(shared / f"{name} sharded"), outcomes(shared / name)
    assert sum(half["held"] for half in halves) == wholes[0]["held"]
    assert max(half["held"] for half in halves) < 0.51 * wholes[0]["held"]
    sharded, whole = (load_file(shared / run / "weights.safetensors") for run in (f"{name} sharded", name))
    assert sharded.keys() == whole.keys()
    for key, value in whole.items():
        assert torch.allclose(sharded[key], value, rtol=0, atol=1e-6), key
    module, _ = TRAININGS[name](8)
    load_weights(module.backbone, shared / f"{name} sharded" / "weights.safetensors")
    assert different(dict(module.backbone.named_parameters()), sharded) == set()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_parameters_cannot_be_shared_out_for_is_refused_in_one_line(name: str, shared: Path) -> None:
    for rank in (0, 1):
        error = (shared / f"{name} refused" / f"error-{rank}").read_text().strip().rpartition("\n")[2]
        assert re.match(r"tta\.errors\.InputError: .*(use --trainer\.strategy ddp|set data_parallel_size to)", error)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_training_of_two_processes_resumes(strategy: str, shared: Path) -> None:
    whole, rest = (outcomes(shared / f"{strategy} resumed" / part) for part in ("", "rest"))
    assert len({*whole[0]["seen"], *whole[1]["seen"]}) == 2 * 440, "every image once in each epoch"
    for uninterrupted, resumed in zip(whole, rest, strict=True):
        assert different(uninterrupted["state"], resumed["state"]) == set()
        assert 0 < len(resumed["seen"]) < len(uninterrupted["seen"]) / 2, "goes on within the second epoch"
        assert uninterrupted["seen"][-len(resumed["seen"]) :] == resumed["seen"]
