"""How a cluster is found, and what is said where it is not."""

import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tta.errors import InputError
from tta.matrix.ray_cluster import check_room, connected


def _cluster(*nodes: dict[str, float]) -> Any:
    """What Ray says of a cluster; its last node is lost."""
    told = [{"Alive": True, "Resources": node} for node in nodes]
    return SimpleNamespace(nodes=lambda: [*told, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}])


def test_a_cell_fits_where_one_node_has_all_that_it_takes_up() -> None:
    check_room(_cluster({"CPU": 8.0}, {"CPU": 4.0, "GPU": 1.0}), cpus=4, gpus=0.5)


def test_a_cell_that_no_node_has_room_for_does_not_wait() -> None:
    cluster = _cluster({"CPU": 8.0}, {"CPU": 4.0, "GPU": 1.0})
    with pytest.raises(InputError, match=r"--cpus-per-cell 8 and --gpus-per-cell 1: .* nodes are 8 and 0, 4 and 1"):
        check_room(cluster, cpus=8, gpus=1.0)


@pytest.mark.parametrize("address", ["head", ":6379", "head:port", "ray://head:10001"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match=f"--address '{address}': give HOST:PORT"), connected(address):
        pass


def test_an_address_where_nothing_answers_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        for given in (address, "auto"):
            with pytest.raises(InputError, match=f"--address {address}: nothing answers there"), connected(given):
                pass


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'tta\[ray\]'"), connected(None):
        pass
