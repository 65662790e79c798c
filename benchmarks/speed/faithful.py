"""The published loops and our adapters must give the same logits, or comparing their speed means nothing."""

from itertools import product

import torch
from torch import Tensor

from benchmarks.speed.networks import CHECKED_NETWORKS, Network, images, predictions
from benchmarks.speed.pairs import NOTHING_REDUNDANT, Pair, make_pair
from tta.functional.entropy import softmax_entropy

TOLERANCE = 1e-4
BATCHES = 5
LEARNING_RATE = 1e-3
# EATA with and without redundant samples. SAR as published also meets a batch that teaches nothing.
CASES = (
    ("SAR", NOTHING_REDUNDANT),
    ("SAR as published", NOTHING_REDUNDANT),
    ("EATA", NOTHING_REDUNDANT),
    ("EATA", 0.6),
    ("Tent", NOTHING_REDUNDANT),
)


def check() -> dict[str, dict[str, float]]:
    """Largest differences of logits over a few steps, by network and adapter; on the CPU in float32.

    Returns:
        For each case ``difference``, between the two sides; ``moved``, between the published side and the source; and
        ``idle_batches``, how many batches held no reliable sample.

    Raises:
        RuntimeError: If two sides differ, or a side did not learn so that the comparison shows nothing.
    """
    found = {}
    for (network_name, network), (name, redundancy) in product(CHECKED_NETWORKS.items(), CASES):
        figures = _compare(network, name, redundancy)
        case = f"{name}{'' if redundancy == NOTHING_REDUNDANT else ', redundancy ' + str(redundancy)}, {network_name}"
        found[case] = figures
        if not figures["difference"] < TOLERANCE:
            raise RuntimeError(f"{case}: logits differ by {figures['difference']:.2e} from those of the published loop")
        if not figures["moved"] > 100 * TOLERANCE:
            raise RuntimeError(f"{case}: the published loop moved logits by {figures['moved']:.2e} only")
    if not any(figures["idle_batches"] for figures in found.values()):
        raise RuntimeError("no batch of the comparison was without reliable samples")
    return found


def _compare(network: Network, name: str, redundancy: float) -> dict[str, float]:
    cpu = torch.device("cpu")
    pair = make_pair(network, name, 16, 0.5, LEARNING_RATE, cpu, redundancy)
    stream = [*pair.batches, *(images(network, 16, seed, cpu) for seed in range(1, BATCHES))]
    if name == "SAR as published":
        stream.insert(2, _least_certain(pair, stream[0]))
    source = predictions(pair.published_model, stream[-1:])
    difference, idle = 0.0, 0
    for x in stream:
        ours, published = pair.ours(x), pair.published(x)
        difference = max(difference, float((ours - published).abs().max()))
        idle += pair.ours.selected() == 0
    return {"difference": difference, "moved": float((published - source).abs().max()), "idle_batches": idle}


def _least_certain(pair: Pair, x: Tensor) -> Tensor:
    """The quarter of a batch with the highest entropies, from which a network is to learn nothing."""
    return x[softmax_entropy(predictions(pair.published_model, [x])).argsort()[-len(x) // 4 :]]
