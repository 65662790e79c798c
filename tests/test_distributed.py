"""Two processes share a stream."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.adapters.conftest import BASE
from tests.every_method import AVERAGED, OWN, RUNS, SHARED, all_runs, host, parameters, run, state
from tests.pairs import different, outcomes, together
from tests.two_processes import ADAPTERS, RESUMED, all_adapted, network
from tta.adapters.registry import adapter_class, list_adapters
from tta.errors import InputError
from tta.modules.suitability import check_adaptation
from tta.resets import Never

ROOT = Path(__file__).parent.parent


def start(adapter: str, folder: Path) -> tuple[int, str]:
    """Run as a user does: one process, which starts the other. Its status, and the end of what it said."""
    words = [sys.executable, "-W", "ignore", "-m", "tests.two_processes", adapter, str(folder), "whole"]
    path = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=path, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stderr[-2000:]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a run of each of ``ADAPTERS`` and resumed ones, all of one pair of processes."""
    return together(all_adapted, tmp_path_factory.mktemp("adapted"))


@pytest.mark.ddp
def test_one_process_starts_the_other(tmp_path: Path) -> None:
    status, said = start("tent", tmp_path)
    assert status == 0, said
    check("tent", tmp_path)


@pytest.mark.ddp
@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_two_processes_end_with_equal_parameters(adapter: str, adapted: Path) -> None:
    check(adapter, adapted / adapter / "whole")


def check(adapter: str, folder: Path) -> None:
    first, second = outcomes(folder)
    assert different(first, second) == set()
    source = network(adapter).state_dict()
    moved = any(not torch.equal(first[name], value) for name, value in source.items())
    assert moved or adapter == "sar that resets"
    samples, flagged, resets, correct = first["seen"].tolist()
    assert samples == 94, "every sample once"
    assert flagged == 8
    last = list(csv.DictReader((folder / "metrics.csv").open()))[-1]
    assert resets == int(last["resets"]), "processes reset together: counted once"
    assert (resets > 0) == (adapter == "sar that resets")
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    assert len({(row["index"], row["domain"]) for row in rows}) == len(rows) == 94
    assert correct == sum(row["label"] == row["prediction"] for row in rows)
    cost = json.loads((folder / "summary.json").read_text())["cost"]
    assert cost["forwards_per_sample"] >= (1.5 if adapter == "sar" else 1.0)
    if adapter == "sar of a transformer":
        assert 0.1 < cost["backwards_per_sample"] < 1.5, "of two, and of samples that teach alone"


@pytest.mark.ddp
@pytest.mark.parametrize("adapter", RESUMED)
def test_a_run_of_two_processes_resumes(adapter: str, adapted: Path) -> None:
    folder = adapted / adapter
    errors = {error.relative_to(folder).as_posix(): error.read_text() for error in folder.glob("*/error-*")}
    assert sorted(errors) == ["cut/error-0", "cut/error-1"], errors
    assert all(error.rstrip().endswith("InterruptedError") for error in errors.values()), errors
    for rank in (0, 1):
        whole, cut = (torch.load(folder / run / f"rank-{rank}.pt", weights_only=True) for run in ("whole", "cut"))
        assert different(whole, cut) == set()
    for name in ("metrics.csv", "predictions.csv"):
        assert (folder / "whole" / name).read_text() == (folder / "cut" / name).read_text()


# ---- every method ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a run of each method, all of one pair of processes."""
    return together(all_runs, tmp_path_factory.mktemp("shared"))


@pytest.mark.ddp
@pytest.mark.parametrize("run_of", sorted(RUNS))
def test_processes_stay_in_step(run_of: str, shared: Path) -> None:
    """Also where one of them meets batches of which nothing, or little, is finite."""
    first, second = outcomes(shared / run_of)
    assert different(first, second) <= OWN.get(RUNS[run_of][0], set())
    assert different(parameters(host(*RUNS[run_of])), first) != set()


@pytest.mark.ddp
@pytest.mark.parametrize("name", sorted(AVERAGED))
def test_two_processes_do_what_one_does_with_twice_the_batch(name: str, shared: Path, tmp_path: Path) -> None:
    together, _ = outcomes(shared / f"{name} whole")
    module = host(name, **AVERAGED[name])
    run(tmp_path, module, 1, 16)
    alone = state(module)
    for key in alone.keys() - OWN.get(name, set()):
        assert torch.allclose(together[key], alone[key], rtol=0, atol=1e-6), key
    moved = [float((alone[key] - value).abs().max()) for key, value in parameters(host(name)).items()]
    assert max(moved) > 1e-4


class Several:
    """All that the check asks of a trainer: two processes."""

    precision = "32-true"
    world_size = 2
    strategy = None


@pytest.mark.parametrize("name", sorted(set(list_adapters()) - set(SHARED)))
def test_all_others_are_refused_in_one_line(name: str) -> None:
    adapter = adapter_class(name)(**BASE.get(name, {}))
    with pytest.raises(InputError, match=r"use --trainer\.devices 1$") as error:
        check_adaptation(adapter, Never(), Several(), None)  # type: ignore[arg-type]
    assert len(str(error.value).splitlines()) == 1


def test_the_page_tells_which_methods_several_processes_share() -> None:
    page = (ROOT / "docs" / "processes.md").read_text()
    told = dict(re.findall(r"^\| (\w+) \| (one|several) \|", page, flags=re.MULTILINE))
    assert told == {adapter_class(name).__name__: "several" if name in SHARED else "one" for name in list_adapters()}
