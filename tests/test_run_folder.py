"""Where the processes of a run write."""

from pathlib import Path

import pytest

from tta.errors import InputError
from tta.run_folder import NUMBERS, choose_run_folder, told_to_children


@pytest.mark.parametrize("name", NUMBERS)
def test_the_first_process_alone_refuses_a_folder_with_a_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others come when it may have begun to write."""
    (tmp_path / "metrics.csv").touch()
    monkeypatch.setenv(name, "0")
    with told_to_children(), pytest.raises(InputError, match="holds a run already"):
        choose_run_folder(str(tmp_path), "sar", None)
    monkeypatch.setenv(name, "1")
    with told_to_children():
        assert choose_run_folder(str(tmp_path), "sar", None) == str(tmp_path)


@pytest.mark.parametrize(("name", "value"), [("TORCHELASTIC_RUN_ID", "none"), ("SLURM_NTASKS", "2"), ("RANK", "1")])
def test_processes_that_a_launcher_starts_need_a_named_folder(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    with told_to_children(), pytest.raises(InputError, match=r"need one folder for all: give --trainer\.default_root"):
        choose_run_folder(None, "sar", None)


def test_a_single_task_of_slurm_chooses_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    with told_to_children():
        assert Path(choose_run_folder(None, "sar", None)).name == "sar"
