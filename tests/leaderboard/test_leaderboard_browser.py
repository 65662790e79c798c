"""The page in a real browser: no console message, figures drawn, tables that sort, no overflow on a phone."""

from pathlib import Path

import pytest

from tests.report.test_report_browser import looked_at
from tta.leaderboard import Leaderboard, write_pages

pytestmark = pytest.mark.browser

PROBE = """<script>
const visible = svg => svg.checkVisibility() && svg.getBoundingClientRect().height > 50;
const drawn = () => [...document.querySelectorAll("figure svg")].filter(visible);
const order = (table, column) => {
  document.querySelectorAll(`#${table} thead button`)[column].click();
  return [...document.querySelectorAll(`#${table} tbody tr`)].map(row => row.cells[column].dataset.key);
};
const state = {
  heading: document.querySelector("h1").innerText,
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  drawn: drawn().length,
  costs: order("systems", 11),
  accuracies: order("systems", 1),
  collapsed: order("cells", 7),
  sorted: [...document.querySelectorAll("th[aria-sort]")].map(head => head.innerText + head.getAttribute("aria-sort")),
};
document.querySelectorAll("details").forEach(part => part.open = true);
state.opened = drawn().length;
state.wide = document.body.scrollWidth - innerWidth;
document.body.dataset.probe = JSON.stringify(state);
</script>"""


def test_page_renders_and_sorts(browser: str, board: Leaderboard, tmp_path: Path) -> None:
    state = looked_at(browser, write_pages(board, tmp_path, "Made up"), PROBE, tmp_path)
    assert state["heading"] == "Made up"
    assert state["overflow"] <= 0
    assert state["wide"] <= 0
    assert (state["drawn"], state["opened"]) == (4, 7)
    assert state["costs"] == ["1.0", "1.0", "3.0", "3.06", "5.35", "5.6"]
    accuracies = [float(key) for key in state["accuracies"]]
    assert accuracies == sorted(accuracies, reverse=True)
    collapsed = [float(key) for key in state["collapsed"]]
    assert collapsed == sorted(collapsed)
    assert collapsed[0] < 384 < collapsed[-1]
    assert [entry.split()[0] for entry in state["sorted"]] == ["Meandescending", "Collapsed"]
