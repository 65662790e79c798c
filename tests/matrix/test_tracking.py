"""The leaderboard on wandb, without a key or a network."""

import json
from pathlib import Path

import pytest

from tta.leaderboard import Leaderboard
from tta.leaderboard.board import Quantity, Row
from tta.matrix.tracking import log_leaderboard

BOARD = Leaderboard((), (Row("tent", "adapter", (), (), {"gain": Quantity(0.125, 1)}),), None, {})


@pytest.fixture
def page(tmp_path: Path) -> Path:
    page = tmp_path / "leaderboard.html"
    page.write_text("<html><body>who is first</body></html>")
    return page


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_table_and_page_go_to_an_offline_run(page: Path) -> None:
    said = log_leaderboard("shifts", "Digits", BOARD, page)
    (stored,) = (page.parent / "wandb").glob("offline-run-*")
    assert said == f"offline, no API key (run 'wandb login'); stored in {stored}; 'wandb sync {stored}' uploads it"
    (table,) = stored.rglob("*.table.json")
    told = json.loads(table.read_text())
    assert dict(zip(told["columns"], told["data"][0], strict=True))["gain"] == 0.125
    (logged,) = stored.rglob("*.html")
    assert "who is first" in logged.read_text()


def test_switched_off_it_stores_nothing(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert log_leaderboard("shifts", "Digits", BOARD, page) == "not logged, WANDB_MODE=disabled"
    assert not (page.parent / "wandb").exists()
