"""The memory of NOTE."""

import copy

import pytest
import torch
from torch import Tensor

from tta import InputError
from tta.adapters.prediction_balanced_memory import PredictionBalancedReservoir


def image(number: float) -> Tensor:
    return torch.full((1, 2, 2), float(number))


@pytest.fixture
def scripted(monkeypatch):
    """Replace the draws of the memory: numbers below a count, and shares in ``[0, 1)``."""
    places: list[int] = []
    shares: list[float] = []
    module = "tta.adapters.prediction_balanced_memory"

    def draw(count, generator):
        value = places.pop(0)
        assert value < count
        return value

    monkeypatch.setattr(f"{module}._draw", draw)
    monkeypatch.setattr(f"{module}.torch.rand", lambda *size, generator: torch.tensor(shares.pop(0)))
    return places, shares


def held(memory: PredictionBalancedReservoir) -> list[tuple[float, int]]:
    values = memory.images[:, 0, 0, 0].tolist()
    return sorted(zip(values, memory.classes.tolist(), strict=True))


def test_hand_made_sequence(scripted):
    places, shares = scripted
    memory, generator = PredictionBalancedReservoir(4), torch.Generator()

    def add(number, label):
        memory.add(image(number), label, 3, generator)

    for number, label in ((1, 0), (2, 0), (3, 0), (4, 1)):
        add(number, label)
    assert held(memory) == [(1, 0), (2, 0), (3, 0), (4, 1)], "taken while there is room"

    # Class 0 is the largest, so its fourth image competes with its own: 3 places of 4 seen.
    shares.append(0.76)
    add(5, 0)
    assert held(memory) == [(1, 0), (2, 0), (3, 0), (4, 1)]
    # The fifth: 3 of 5, and of its places the second.
    shares.append(0.59)
    places.append(1)
    add(6, 0)
    assert held(memory) == [(1, 0), (3, 0), (4, 1), (6, 0)]
    # Class 2 holds nothing: it takes a place of class 0, the only largest (place 0 of one class), its first image.
    places.extend([0, 0])
    add(7, 2)
    assert held(memory) == [(3, 0), (4, 1), (6, 0), (7, 2)]
    # Class 1 has one place and class 0 two: class 0 gives one.
    places.extend([0, 1])
    add(8, 1)
    assert sorted(memory.classes.tolist()) == [0, 1, 1, 2]
    assert memory.seen.tolist() == [5, 2, 1]
    # Now class 1 is the largest: it has 2 of 3.
    shares.append(0.67)
    before = held(memory)
    add(9, 1)
    assert held(memory) == before
    assert not places
    assert not shares


def test_one_of_several_largest_classes_gives(scripted):
    places, _ = scripted
    memory = PredictionBalancedReservoir(4)
    for number, label in enumerate((0, 0, 1, 1)):
        memory.add(image(number), label, 3, torch.Generator())
    places.extend([1, 0])
    memory.add(image(9), 2, 3, torch.Generator())
    assert held(memory) == [(0, 0), (1, 0), (3, 1), (9, 2)]


def fill(capacity: int, labels: list[int], seed: int = 0) -> PredictionBalancedReservoir:
    memory, generator = PredictionBalancedReservoir(capacity), torch.Generator().manual_seed(seed)
    for number, label in enumerate(labels):
        memory.add(image(number), label, 10, generator)
    return memory


def test_a_sorted_stream_leaves_equal_shares():
    memory = fill(20, [label for label in range(10) for _ in range(40)])
    assert len(memory) == 20
    assert memory.counts().tolist() == [2] * 10


def test_within_a_class_every_image_is_as_likely_to_stay():
    """Reservoir sampling: 10 of 40 images, over 200 streams each 50 times; six standard errors are 37."""
    stays = torch.zeros(40)
    for seed in range(200):
        stays[fill(10, [0] * 40, seed).images[:, 0, 0, 0].long()] += 1
    assert stays.sum() == 2000
    assert ((stays - 50).abs() < 37).all()
    assert abs(float(stays[:10].mean() - stays[30:].mean())) < 15


def test_draws_come_from_the_generator_alone():
    labels = torch.randint(10, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    state = torch.get_rng_state()
    one, again, other = fill(8, labels), fill(8, labels), fill(8, labels, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, other.images)


def test_state_loads_into_memories_that_hold_more_or_less():
    full, empty = fill(4, [0, 1, 2, 3, 4]), PredictionBalancedReservoir(4)
    kept, nothing = copy.deepcopy(full.state_dict()), copy.deepcopy(empty.state_dict())
    empty.load_state_dict(kept)
    assert held(empty) == held(full)
    full.load_state_dict(nothing)
    assert len(full) == 0
    assert full.counts().tolist() == []


def test_images_of_another_size_are_refused_until_it_is_empty():
    memory = fill(4, [0])
    with pytest.raises(InputError, match=r"holds images of shape \(1, 2, 2\) and got \(1, 3, 3\)"):
        memory.check(torch.zeros(5, 1, 3, 3))
    memory.reset()
    memory.check(torch.zeros(5, 1, 3, 3))


def test_what_is_stored_is_a_copy():
    memory, one = PredictionBalancedReservoir(2), image(1)
    memory.add(one, 0, 2, torch.Generator())
    one.fill_(9)
    assert held(memory) == [(1, 0)]
