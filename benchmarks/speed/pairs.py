"""Our adapters and the published loops side by side: same network, same parameters, same optimiser."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.speed.networks import Network, build, candidates, choose, margin_for_share
from benchmarks.speed.published import PublishedEATA, PublishedSAR, PublishedTent
from tta.adapters import EATA, SAR, Adapter, Select, Tent
from tta.adapters.base import AdapterOutput
from tta.updater import TorchUpdater

ADAPTERS = ("SAR", "EATA", "Tent")
NOTHING_REDUNDANT = 1.1
Step = Callable[[Tensor], Tensor]


def make_adapter(name: str, margin: float, redundancy: float = NOTHING_REDUNDANT) -> Adapter:
    """Our adapter of a name, ``margin`` a share of ``ln C``. ``SAR as published`` keeps the authors' quirks."""
    if name == "SAR":
        return SAR(margin=margin, reset_threshold=0.0)
    if name == "SAR as published":
        return SAR(margin=margin, reset_threshold=0.0, select=Select(stop=0.75), published=True)
    if name == "EATA":
        return EATA(margin=margin, redundancy=redundancy, fisher_alpha=0.0)
    return Tent()


class Ours:
    """One of our adapters, called as a host without protocol calls it.

    Args:
        adapter: The adapter.
        model: The prepared classifier.
        lr: Learning rate of SGD with momentum.
    """

    def __init__(self, adapter: Adapter, model: nn.Module, lr: float) -> None:
        self.adapter, self.model = adapter, model
        self.updater = TorchUpdater(sgd(adapter.trainable(model), lr))
        self.last: AdapterOutput | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Logits from before the step."""
        self.last = self.adapter(self.model, x, self.updater)
        return self.last.logits

    def selected(self) -> int:
        """How many samples of the last batch taught; all of them where the method selects none."""
        if self.last is None:
            return 0
        return len(self.last.logits) if self.last.reliable is None else int(self.last.reliable.sum())


@dataclass(frozen=True)
class Pair:
    """Both sides of one comparison, each with a network of its own that starts from the same weights.

    Attributes:
        batches: What both go through: one batch, or a pool of single images.
    """

    ours: Ours
    published: Step
    published_model: nn.Module
    batches: list[Tensor]
    margin: float


def make_pair(
    network: Network,
    name: str,
    batch: int,
    share: float,
    lr: float,
    device: torch.device,
    redundancy: float = NOTHING_REDUNDANT,
) -> Pair:
    """Both sides of a comparison.

    Args:
        network: The network.
        name: Name of the adapter, as :func:`make_adapter` takes it.
        batch: Images in a batch.
        share: Share of the images that is to be reliable.
        lr: Learning rate of both sides.
        device: Where to compute.
        redundancy: EATA's cosine threshold.
    """
    pool = candidates(network, batch, device)
    model = build(network, make_adapter(name, 1.0), pool)
    batches = choose(model, pool, share)
    margin = margin_for_share(model, batches, share)
    adapter = make_adapter(name, margin, redundancy)
    twin = copy.deepcopy(model)
    adapter.prepare(model)
    adapter.prepare(twin)
    parameters = adapter.trainable(twin)
    optimizer = sgd(parameters, lr)
    nats = margin * math.log(network.classes)
    published: Step
    if name == "Tent":
        published = PublishedTent(twin, optimizer)
    elif name == "EATA":
        published = PublishedEATA(twin, optimizer, nats, redundancy)
    else:
        published = PublishedSAR(twin, optimizer, parameters, nats)
    return Pair(Ours(adapter, model, lr), published, twin, batches, margin)


def sgd(parameters: list[nn.Parameter], lr: float) -> torch.optim.SGD:
    """The optimiser of both sides."""
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)
