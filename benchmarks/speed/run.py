"""Speed of SAR, EATA and Tent against plain loops of the published algorithms and against arithmetic.

    python -m benchmarks.speed.run measure --runs runs/speed      # resumable; filters take parts of it
    python -m benchmarks.speed.run table --runs runs/speed

Both sides train the same parameters of the same network with the same optimiser and are timed in turn in one process;
ratios are taken pair by pair. Before anything is measured, both must give the same logits on two small networks.
Networks have random weights and images are random, with margins set so that a chosen share of the images is reliable.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import timm
import torch
from tqdm import tqdm

from benchmarks.speed import faithful
from benchmarks.speed.cells import ALL_NETWORKS, PARTS, Cell, cells
from benchmarks.speed.measure import measure
from benchmarks.speed.pairs import ADAPTERS


def setting(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Where and with what a cell was measured."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "timm": timm.__version__,
        "threads": options.threads,
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor()
    lines = information.read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def wanted(options: argparse.Namespace, cell: Cell) -> bool:
    """Whether a cell passes the filters."""
    filters = ((options.part, cell.part), (options.network, cell.network), (options.adapter, cell.adapter))
    more = ((options.batch, cell.batch), (options.share, cell.share))
    return all(not allowed or value in allowed for allowed, value in (*filters, *more))


def path(options: argparse.Namespace, cell: Cell) -> Path:
    """The file of a cell."""
    folder: Path = options.runs / "cells"
    return folder / f"{cell.stem}.json"


def measure_all(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    (options.runs / "cells").mkdir(parents=True, exist_ok=True)
    agreement = faithful.check()
    (options.runs / "agreement.json").write_text(json.dumps(agreement, indent=1) + "\n")
    found = setting(options, device)
    left = [cell for cell in cells(device) if wanted(options, cell) and not path(options, cell).exists()]
    form = "{l_bar}{bar}| [{elapsed}<{remaining}]{postfix}"
    with tqdm(total=sum(cell.work for cell in left), bar_format=form) as bar:
        for cell in left:
            bar.set_postfix_str(cell.stem)
            result = measure(cell, device, options.repeats)
            result |= {"setting": found, "date": time.strftime("%Y-%m-%d")}
            whole = path(options, cell)
            begun = whole.with_suffix(".part")
            begun.write_text(json.dumps(result))
            begun.replace(whole)
            bar.update(cell.work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "table"))
    parser.add_argument("--runs", type=Path, default=Path("runs/speed"), help="where the cells are kept")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="at least; short steps are repeated more often")
    parser.add_argument("--part", nargs="+", choices=PARTS, help="these parts only")
    parser.add_argument("--network", nargs="+", choices=tuple(ALL_NETWORKS), help="these networks only")
    parser.add_argument("--adapter", nargs="+", choices=ADAPTERS, help="these adapters only")
    parser.add_argument("--batch", nargs="+", type=int, help="these batch sizes only")
    parser.add_argument("--share", nargs="+", type=float, help="these reliable shares only")
    options = parser.parse_args()
    if options.what == "measure":
        measure_all(options)
        return
    from benchmarks.speed.table import write

    write(options.runs)


if __name__ == "__main__":
    main()
