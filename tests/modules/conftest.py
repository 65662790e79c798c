"""A small stream, a small host, and runs of both."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import nn

from datamodules import DigitsStream
from models import DomainExperts, TimmClassifier
from tta.adapters import EATA, SAR, Adapter, BNStats, Source, Tent
from tta.callbacks import BatchCheckpoint
from tta.modules import OnlineAdaptation
from tta.trainer import StreamTrainer

ADAPTERS: dict[str, Callable[[], Adapter]] = {
    "source": Source,
    "bnstats": lambda: BNStats(batch_weight=0.3, accumulate=True),
    "tent": Tent,
    "eata": lambda: EATA(margin=0.99, redundancy=0.9, fisher_alpha=1.0),
    "sar": lambda: SAR(margin=0.99),
}


class Collect(Callback):
    """Keep what every batch gave, and stop where asked."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.logits: list[torch.Tensor] = []
        self.stop_after = stop_after

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.logits.append(outputs["logits"])
        if self.stop_after is not None and batch_idx + 1 == self.stop_after:
            raise InterruptedError


@pytest.fixture
def make_stream() -> Callable[..., DigitsStream]:
    def make(**arguments: Any) -> DigitsStream:
        given = {
            "domains": ["contrast", "gaussian_noise"],
            "samples_per_domain": 40,
            "batch_size": 16,
            "source_samples": 32,
        }
        return DigitsStream(**{**given, **arguments})

    return make


@pytest.fixture
def make_host() -> Callable[..., OnlineAdaptation]:
    def make(adapter: str | Adapter = "sar", lr: float = 0.05, seed: int = 0, **arguments: Any) -> OnlineAdaptation:
        torch.manual_seed(seed)
        backbone = arguments.pop("backbone", None) or TimmClassifier("test_resnet", num_classes=10)
        method = ADAPTERS[adapter]() if isinstance(adapter, str) else adapter
        return OnlineAdaptation(
            backbone,
            method,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
            num_classes=arguments.pop("num_classes", 10),
            **arguments,
        )

    return make


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., StreamTrainer]:
    def make(folder: str = "run", *callbacks: Callback, every: int = 2, **arguments: Any) -> StreamTrainer:
        return StreamTrainer(
            default_root_dir=tmp_path / folder,
            callbacks=[*callbacks, BatchCheckpoint(every)],
            accelerator="cpu",
            logger=False,
            **{"enable_progress_bar": False, "enable_model_summary": False, **arguments},
        )

    return make


@pytest.fixture
def collect() -> type[Collect]:
    return Collect


@pytest.fixture(params=sorted(ADAPTERS))
def adapter_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def backbone(untrained: Callable[..., nn.Module]) -> DomainExperts:
    """A student with two experts, each with weights of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DomainExperts(untrained("bn"), experts=2)
    for number, expert in enumerate(model.experts):
        expert.load_state_dict(untrained("bn", seed=number + 1).state_dict())
    return model
