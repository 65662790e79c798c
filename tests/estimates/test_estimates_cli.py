"""The shipped parts that switch estimates on, by the command line."""

import csv
import json
from pathlib import Path

import pytest

from tta.cli import main

ROOT = Path(__file__).parent.parent.parent
PARTS = sorted(file.stem for file in (ROOT / "configs" / "estimates").glob("*.yaml"))


@pytest.mark.parametrize("part", PARTS)
def test_every_part_logs_estimates(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    files = (
        "data/digits",
        "stream/continual",
        "model/digits_resnet8",
        "adapter/tent",
        "trainer/cpu",
        f"estimates/{part}",
    )
    words = [word for file in files for word in ("--config", f"configs/{file}.yaml")]
    images = ("--data.domains", "[contrast]", "--data.samples_per_domain", "64", "--data.source_samples", "32")
    small = ("--data.batch_size", "16", "--model.window", "32", "--trainer.limit_val_batches", "0")
    quiet = ("--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", str(tmp_path / "run"))
    assert main(["adapt", *words, *images, *small, *quiet]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["estimates"]
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for name, compared in summary.items():
        assert all(0.0 <= float(row[f"estimate/{name}"]) <= 1.0 for row in rows)
        assert compared["windows"] == 3
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Label-free estimates of accuracy" in page
    assert "off by" in page
