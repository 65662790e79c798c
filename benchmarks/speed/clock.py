"""Time and memory of a step, on the CPU and on a GPU."""

import ctypes
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.speed.pairs import Step

PRECISIONS = {"cpu": ("float32",), "cuda": ("float32", "tf32", "bfloat16")}
"""Precisions measured by device type; ``bfloat16`` is autocast."""


@contextmanager
def precision(name: str, device: torch.device) -> Iterator[None]:
    """Within the context, passes run in a precision of :data:`PRECISIONS`."""
    if device.type != "cuda":
        yield
        return
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = name == "tf32"
    cast = torch.autocast("cuda", torch.bfloat16) if name == "bfloat16" else nullcontext()
    try:
        with cast:
            yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time of one call; on a GPU by events on its stream."""
    if device.type != "cuda":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    run()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1000


def step_times(steps: Sequence[Step], batches: Sequence[Tensor], repeats: int) -> list[list[list[float]]]:
    """Times of steps that take turns: in every repeat each goes through all batches before the next one does.

    Returns:
        Seconds by step, repeat and batch.
    """
    device = batches[0].device
    times: list[list[list[float]]] = [[] for _ in steps]
    for _ in range(repeats):
        for step, found in zip(steps, times, strict=True):
            found.append([seconds(lambda step=step, x=x: step(x), device) for x in batches])
    return times


def peak_memory(run: Callable[[], object], device: torch.device) -> float | None:
    """Memory that a call needs at its peak above what was held before it, MiB; ``None`` where it cannot be told.

    On a GPU what the allocator handed out; on Linux resident memory, after free pages were given back.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if sys.platform != "linux":
        run()
        return None
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_megabytes("VmRSS")
    run()
    return _status_megabytes("VmHWM") - before


def _status_megabytes(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(name))
