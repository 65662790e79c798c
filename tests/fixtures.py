"""House rules for every test, and the small networks and images that most of them use."""

import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import settings
from sklearn.datasets import load_digits
from torch import Tensor, nn

import models
from tests.copies import copies_of
from tta.report import read_run

settings.register_profile("house", deadline=None)
settings.load_profile("house")

LOOPBACK = ("127.0.0.1", "::1", "localhost", "")

SET_BY_LIBRARIES = (
    "CRC32C_SW_MODE",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_DEVICE_ORDER",
    "CUDA_MODULE_LOADING",
    "KMP_",
    "LOCAL_RANK",
    "MASTER_",
    "MPLBACKEND",
    "NODE_RANK",
    "OMP_",
    "PL_",
    "PYTEST_",
    "QT_",
    "PYTORCH_NVML_",
    "RANK",
    "TORCHINDUCTOR_",
    "TRITON_",
    "TF_",
    "WANDB_",
    "WORLD_SIZE",
)
"""Beginnings of names that Lightning, its loggers, torch and pytest set by themselves. Restored all the same."""


@pytest.fixture(autouse=True)
def _seeded_single_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _no_environment_leak() -> Iterator[None]:
    before = dict(os.environ)
    yield
    changed = {name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)}
    os.environ.clear()
    os.environ.update(before)
    leaked = sorted(name for name in changed if not name.startswith(SET_BY_LIBRARIES))
    assert not leaked, f"the test changed environment variables and did not put them back: {leaked}"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def guarded(method: str) -> Callable[..., Any]:
        original = getattr(socket.socket, method)

        def connect(self: socket.socket, address: Any) -> Any:
            host = address[0] if isinstance(address, tuple) else ""
            if self.family != getattr(socket, "AF_UNIX", None) and host not in LOOPBACK:
                raise OSError(f"a test asked for the network: {address}")
            return original(self, address)

        return connect

    create = socket.create_connection

    def create_connection(address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        if address[0] not in LOOPBACK:
            raise OSError(f"a test asked for the network: {address}")
        return create(address, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded("connect"))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded("connect_ex"))
    monkeypatch.setattr(socket, "create_connection", create_connection)


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """Handwritten digits as images (1797, 3, 32, 32) in [0, 1], and their classes."""
    data = load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 16
    images = F.interpolate(images, size=(32, 32), mode="bilinear", align_corners=False)
    return images.repeat(1, 3, 1, 1), torch.from_numpy(data.target).long()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "bn": lambda: timm.create_model("test_resnet", num_classes=10),
    "ln": lambda: timm.create_model("test_vit", img_size=32, patch_size=8, num_classes=10),
    "ln2d": lambda: timm.create_model("test_convnext", num_classes=10),
    "gn": lambda: models.CifarResNet(depth=8, norm="group"),
}


@pytest.fixture(scope="session")
def untrained() -> Callable[[str], nn.Module]:
    """Maker of a seeded network: ``bn``, ``ln``, ``ln2d`` or ``gn``. Leaves the global generator as it was."""

    ready: dict[tuple[str, int], Callable[[], nn.Module]] = {}

    def make(kind: str, seed: int = 0) -> nn.Module:
        if (kind, seed) not in ready:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                ready[kind, seed] = copies_of(NETWORKS[kind]().eval())
        return ready[kind, seed]()

    return make


@pytest.fixture(scope="session")
def trained(untrained: Callable[..., nn.Module], digits: tuple[Tensor, Tensor]) -> Callable[[str], nn.Module]:
    """Maker of a network briefly trained on clean digits, so that its entropies vary. A new copy at each call."""
    ready: dict[str, Callable[[], nn.Module]] = {}

    def make(kind: str) -> nn.Module:
        if kind not in ready:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                ready[kind] = copies_of(_train(untrained(kind), *digits))
        return ready[kind]()

    return make


def _train(model: nn.Module, images: Tensor, labels: Tensor) -> nn.Module:
    """A few steps on everything, for running statistics, then the last layer alone on fixed features."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    images, labels = images[:800], labels[:800]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for rows in torch.randperm(800).split(32):
        optimizer.zero_grad()
        F.cross_entropy(model.train()(images[rows]), labels[rows]).backward()
        optimizer.step()
    head = [m for m in model.eval().modules() if isinstance(m, nn.Linear)][-1]
    features: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, args: features.append(args[0]))
    with torch.no_grad():
        model(images)
    handle.remove()
    scale = features[0].std(dim=0).mean()
    optimizer = torch.optim.Adam(head.parameters(), lr=float(0.01 / scale))
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(head(features[0]), labels).backward()
        optimizer.step()
    torch.set_num_threads(threads)
    model.zero_grad()
    return model


@pytest.fixture(scope="session")
def stream(digits: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Six batches of six noisy digits that no network was trained on."""
    generator = torch.Generator().manual_seed(0)
    images = digits[0][1000:1036]
    noisy = (images + 0.05 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    return list(noisy.split(6))


@pytest.fixture
def pages_without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For runs whose page nobody looks at: their records are read and a page is written, but nothing is drawn.

    Drawing takes longer than a small run. Pages are looked at in ``tests/report``, and drawn for each method and each
    stream in ``tests/test_configs.py``.
    """

    def write_page(folder: Path) -> Path:
        run = read_run(folder)
        page = run.path / "report.html"
        page.write_text(run.text("adapter"))
        return page

    monkeypatch.setattr("tta.callbacks.report.write_report", write_page)


@pytest.fixture(scope="session")
def flat() -> Callable[[Any], dict[str, Any]]:
    """Flatten nested state into ``path -> bytes or value``, so that ``==`` compares bit for bit, NaN included."""

    def walk(value: Any, path: str = "") -> dict[str, Any]:
        if isinstance(value, Tensor):
            return {path: (tuple(value.shape), str(value.dtype), value.detach().cpu().contiguous().numpy().tobytes())}
        if isinstance(value, dict):
            return {k: v for name, item in value.items() for k, v in walk(item, f"{path}/{name}").items()}
        if isinstance(value, (list, tuple)):
            return {k: v for number, item in enumerate(value) for k, v in walk(item, f"{path}/{number}").items()}
        return {path: value}

    return walk
