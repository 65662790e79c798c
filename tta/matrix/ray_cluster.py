"""A Ray cluster: started here, or one that is there."""

import importlib
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from tta.errors import InputError

OBJECT_STORE = 80 * 1024**2
"""Bytes of shared memory of a cluster that is started here: cells hand nothing over but their outcome."""

PATIENCE = 10.0
"""Seconds within which an address has to answer."""

ONE_TRY = {"RAY_gcs_server_port_wait_time_s": "1"}
"""Makes Ray give up an address where something else answers after a minute, and not after a quarter of an hour."""


@contextmanager
def connected(address: str | None) -> Iterator[ModuleType]:
    """Within the context this process is connected to a cluster.

    Args:
        address: ``HOST:PORT`` of a cluster, or ``auto`` for the one that ``RAY_ADDRESS`` names or this machine is a
            node of; ``None`` starts one here, and ends it with the context.

    Yields:
        Ray.

    Raises:
        InputError: If Ray is not installed, or the cluster cannot be started or reached.
    """
    ray = _imported()
    with _without_dumps():
        _connect(ray, address)
        try:
            yield ray
        finally:
            ray.shutdown()


def check_room(ray: ModuleType, cpus: int, gpus: float) -> None:
    """Make sure that a node has room for a cell, which would wait for ever.

    Args:
        ray: Ray, connected.
        cpus: Processors of a cell.
        gpus: GPUs of a cell.

    Raises:
        InputError: If no node has so many.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = [(int(node.get("CPU", 0)), node.get("GPU", 0)) for node in nodes]
    if not any(cpus <= most and gpus <= most_gpus for most, most_gpus in room):
        have = ", ".join(f"{most} and {most_gpus:g}" for most, most_gpus in sorted(set(room), reverse=True))
        raise InputError(
            f"no node of the cluster has --cpus-per-cell {cpus} and --gpus-per-cell {gpus:g}: processors and GPUs of "
            f"its nodes are {have}"
        )


def _imported() -> ModuleType:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise InputError("--engine ray: Ray is not installed: pip install 'tta[ray]'") from error


def _connect(ray: ModuleType, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    if address not in (None, "auto"):
        _check_answers(str(address))
    try:
        if address is None:
            ray.init("local", include_dashboard=False, object_store_memory=OBJECT_STORE, **quiet)
        else:
            with _environment(ONE_TRY):
                ray.init(address, **quiet)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())
        if address is None:
            raise InputError(f"--engine ray: no cluster can be started here: {reason}") from error
        raise InputError(
            f"--address {address}: cannot connect ({reason}): this machine has to be a node of the cluster, see 'ray "
            "status' and 'ray start'"
        ) from error


@contextmanager
def _without_dumps() -> Iterator[None]:
    """Ray prints a hundred lines for each node that it loses; no setting of its own keeps it from that."""
    worker: Any = importlib.import_module("ray._private.worker")
    before = getattr(worker, "print_to_stdstream", None)
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise InputError(f"--address {address!r}: give HOST:PORT, such as 10.0.0.1:6379, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--address {address}: nothing answers there ({error}): 'ray start --head' starts a cluster"
        ) from error
