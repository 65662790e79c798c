"""The pages in a real browser: no console message, figures drawn, a table that sorts, no overflow on a phone."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tta.report import write_comparison, write_report

pytestmark = pytest.mark.browser
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
    "--virtual-time-budget=5000",
    "--window-size=500,900",
    "--dump-dom",
)
PROBE = """<script>
const svgs = [...document.querySelectorAll("figure svg")];
const order = column => {
  document.querySelectorAll("thead button")[column].click();
  return [...document.querySelectorAll("#results tbody tr:not(.group)")].map(row => row.cells[0].dataset.key);
};
document.body.dataset.probe = JSON.stringify({
  heading: document.querySelector("h1").innerText,
  drawn: svgs.filter(svg => svg.getBoundingClientRect().height > 50 && svg.querySelector("path")).length,
  figures: svgs.length,
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  orders: document.getElementById("results") ? [order(1), order(1), order(0), order(4)] : [],
  sorted: [...document.querySelectorAll("th[aria-sort]")].map(head => head.innerText + head.getAttribute("aria-sort")),
});
</script>"""


@pytest.fixture(scope="session")
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("no Chromium binary on this machine")


def looked_at(browser: str, page: Path, script: str, tmp_path: Path) -> dict[str, Any]:
    """What a script at the end of a page leaves in ``data-probe``; the page itself says nothing on the console."""
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", script + "</body>"), encoding="utf-8")
    command = [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert [line for line in result.stderr.splitlines() if "CONSOLE" in line] == []
    found = re.search(r'data-probe="([^"]*)"', result.stdout)
    assert found is not None
    return dict(json.loads(unescape(found.group(1))))


def _probe(browser: str, page: Path, tmp_path: Path) -> dict[str, Any]:
    copy = Path(shutil.copyfile(page, tmp_path / "probe.html"))  # the folder of the run serves other tests too
    state = looked_at(browser, copy, PROBE, tmp_path)
    assert state["overflow"] == 0
    return state


def test_report_renders(browser: str, folders: dict[str, Path], tmp_path: Path) -> None:
    state = _probe(browser, write_report(folders["collapsing"]), tmp_path)
    assert state["heading"] == "Tent on DigitsStream"
    assert state["drawn"] == state["figures"] == 16


def test_comparison_sorts_on_click(browser: str, folders: dict[str, Path], tmp_path: Path) -> None:
    runs = [folders[name] for name in ("gradient_free", "unlabelled", "healthy", "collapsing")]
    state = _probe(browser, write_comparison(runs, tmp_path / "out"), tmp_path)
    assert state["heading"] == "4 runs compared"
    assert state["drawn"] == state["figures"] == 3
    best, worst, by_name, by_collapse = state["orders"]
    assert best == ["SAR (healthy)", "BNStats", "SAR (unlabelled)", "Tent"]
    assert worst == ["BNStats", "SAR (healthy)", "SAR (unlabelled)", "Tent"]
    assert by_name == ["BNStats", "SAR (healthy)", "SAR (unlabelled)", "Tent"]
    assert by_collapse[0] == "BNStats"
    assert [entry.split()[0] for entry in state["sorted"]] == ["Collapsedescending"]
