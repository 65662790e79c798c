"""Single levers on the cost of a pass or a step, each against the plain way, in turn in one process.

    python -m benchmarks.speed.levers

Writes ``levers.json`` beside this file; what was kept and what was not, and why, stands in ``NOTES.md``.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.speed.clock import seconds
from benchmarks.speed.networks import NETWORKS, build, images
from benchmarks.speed.published import entropies
from tta.adapters import SAR
from tta.adapters.first_pass import RecordedPass, WholePass
from tta.functional.forward_record import ForwardRecord
from tta.functional.sharpness import perturb_to_worst_case, restore_parameters

CPU = torch.device("cpu")
BATCH = 64
Levers = dict[str, Callable[[], object]]


def passes(model: nn.Module, parameters: list[nn.Parameter], x: Tensor) -> Levers:
    """Ways to send a batch forward without a graph, and forward and backward with one."""
    last = x.contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(copy.deepcopy(model))

    def forward(network: Callable[[Tensor], Tensor], batch: Tensor) -> None:
        with torch.no_grad():
            network(batch)

    def backward(logits: Tensor) -> None:
        torch.autograd.grad(entropies(logits.float()).mean(), parameters)

    def in_parts(size: int) -> None:
        backward(torch.cat([model(part) for part in x.split(size)]))

    def cast() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            backward(model(x))

    return {
        "forward": lambda: forward(model, x),
        "forward, channels last": lambda: forward(model, last),
        "forward, compiled": lambda: forward(compiled, x),
        "forward, recorded": lambda: ForwardRecord(model, x),
        "forward and backward": lambda: backward(model(x)),
        "forward and backward, channels last": lambda: backward(model(last)),
        "forward and backward, bfloat16": cast,
        **{f"forward and backward, in parts of {size}": lambda size=size: in_parts(size) for size in (32, 16, 8)},
    }


def shares(model: nn.Module, parameters: list[nn.Parameter], x: Tensor) -> Levers:
    """A graph over a share of the batch: cut out of the whole one, from a record, by a second pass."""
    levers: Levers = {}
    for share in (0.1, 0.3, 0.5, 0.7, 0.8, 0.9):
        chosen = torch.zeros(len(x), dtype=torch.bool)
        chosen[: round(share * len(x))] = True

        def whole(chosen: Tensor = chosen) -> None:
            backward(WholePass(model, x, independent=True).graph(chosen))

        def recorded(chosen: Tensor = chosen) -> None:
            backward(RecordedPass(model, x).graph(chosen))

        def computed(chosen: Tensor = chosen) -> None:
            with torch.no_grad():
                model(x)
            backward(WholePass(model, x[chosen], independent=True).graph(chosen[chosen]))

        def backward(logits: Tensor) -> None:
            torch.autograd.grad(entropies(logits).mean(), parameters)

        levers |= {f"whole, {share}": whole, f"recorded, {share}": recorded, f"computed again, {share}": computed}
    return levers


def steps(parameters: list[nn.Parameter]) -> Levers:
    """SAR's move and way back, and the optimiser's step, over the adapted parameters."""
    gradients = [torch.randn_like(parameter) for parameter in parameters]
    optimizers = {
        name: torch.optim.SGD(parameters, lr=1e-8, momentum=0.9, foreach=name == "foreach", fused=name == "fused")
        for name in ("loop", "foreach", "fused")
    }

    def fill() -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient

    def move() -> None:
        fill()
        before = perturb_to_worst_case(parameters, 0.05)
        restore_parameters(parameters, before or [])

    @torch.no_grad()
    def move_one_by_one() -> None:
        fill()
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        before = [parameter.clone() for parameter in parameters]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.add_(gradient * (0.05 / (norm + 1e-12)))
            parameter.grad = None
        for parameter, value in zip(parameters, before, strict=True):
            parameter.copy_(value)

    def step(name: str) -> None:
        fill()
        optimizers[name].step()

    return {
        "move and back, foreach": move,
        "move and back, one by one": move_one_by_one,
        **{f"SGD, {name}": lambda name=name: step(name) for name in optimizers},
    }


def measure(name: str, repeats: int) -> dict[str, dict[str, float]]:
    """Median, least and most milliseconds of every lever on one network."""
    network = NETWORKS[name]
    x = images(network, BATCH, 0, CPU)
    adapter = SAR()
    model = build(network, adapter, [x])
    parameters = adapter.trainable(model)
    parts = {**passes(model, parameters, x), **shares(model, parameters, x)}
    found: dict[str, list[float]] = {lever: [] for lever in parts}
    started = time.perf_counter()
    parts["forward, compiled"]()
    compiling = time.perf_counter() - started
    for repeat in tqdm(range(repeats + 1), desc=name):
        for lever, run in parts.items():
            taken = seconds(run, CPU)
            if repeat:
                found[lever].append(taken)
    for lever, run in steps(parameters).items():
        found[lever] = [seconds(run, CPU) for _ in range(101)][1:]
    rows = {lever: _figures(times) for lever, times in found.items()}
    return {**rows, "compiling": _figures([compiling])}


def _figures(times: list[float]) -> dict[str, float]:
    figures = {"median": statistics.median(times), "least": min(times), "most": max(times)}
    return {name: round(1000 * value, 4) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--network", nargs="+", choices=("resnet50_gn", "vit_tiny"), default=["resnet50_gn", "vit_tiny"]
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    path = Path(__file__).with_suffix(".json")
    found = json.loads(path.read_text()) if path.exists() else {}
    for name in options.network:
        setting = {"threads": options.threads, "batch": BATCH, "repeats": options.repeats, "torch": torch.__version__}
        found[name] = {"setting": setting, "milliseconds": measure(name, options.repeats)}
        path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
