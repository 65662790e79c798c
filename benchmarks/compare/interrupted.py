"""A matrix that is killed and called again, against one that is not.

    python -m benchmarks.compare.interrupted

Runs the matrix of digits once as it is, once killed (SIGKILL) when a random number of cells had finished and called
again; then compares the pages, the tables and all records byte for byte. A finished reference is used again.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PAGES = ("leaderboard.html", "leaderboard.csv", "cells.csv")
RECORDS = ("predictions.csv", "metrics.csv")


def command(options: argparse.Namespace, folder: Path) -> list[str]:
    words = [sys.executable, "-m", "tta", "compare", str(options.matrix), "--output", str(folder)]
    return [*words, "--jobs", str(options.jobs)]


def states(folder: Path) -> dict[str, dict[str, Any]]:
    """The state of every cell that was started; states are written at once, so that each can be read."""
    return {str(file.parent.relative_to(folder)): json.loads(file.read_text()) for file in folder.rglob("status.json")}


def finished(folder: Path) -> dict[str, int]:
    """Finished cells, and when their records were written last."""
    names = [name for name, status in states(folder).items() if status["state"] == "finished"]
    return {name: (folder / name / "metrics.csv").stat().st_mtime_ns for name in names}


def kill_at(options: argparse.Namespace, folder: Path, cells: int) -> dict[str, int]:
    process = subprocess.Popen(command(options, folder))
    while len(finished(folder)) < cells and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return finished(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matrix", type=Path, default=Path("configs/compare/digits.yaml"))
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7, help="of the number of cells after which it is killed")
    options = parser.parse_args()
    whole, killed = options.runs / options.matrix.stem, options.runs / f"{options.matrix.stem}-killed"
    shutil.rmtree(killed, ignore_errors=True)
    if not (whole / PAGES[0]).exists():
        subprocess.run(command(options, whole), check=True)
    cells = len(states(whole))
    before = kill_at(options, killed, random.Random(options.seed).randrange(1, cells))
    subprocess.run(command(options, killed), check=True)
    after = states(killed)
    runs = [name for name in after if name.startswith("cells/")]
    files = [*PAGES, *(f"{name}/{record}" for name in runs for record in RECORDS)]
    result = {
        "cells": cells,
        "finished_when_killed": len(before),
        "finished_cells_run_again": sum(finished(killed)[name] != written for name, written in before.items()),
        "cells_started_twice": sum(status["attempts"] > 1 for status in after.values()),
        "same_cells": sorted(after) == sorted(states(whole)),
        "files_compared": len(files),
        "files_that_differ": [name for name in files if (whole / name).read_bytes() != (killed / name).read_bytes()],
    }
    print(json.dumps(result, indent=1))
    (Path(__file__).parent / "interrupted.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
