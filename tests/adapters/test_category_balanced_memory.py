"""The memory against sequences worked out by hand, and against plain lists."""

import io
import math

import pytest
import torch

import tta
from tta.adapters.category_balanced_memory import CategoryBalancedMemory


def offer(memory: CategoryBalancedMemory, name: int, label: int, share: float, classes: int) -> None:
    """One sample whose image is its name, of an entropy that is this share of the largest."""
    image = torch.full((1, 1), float(name))
    memory.add(image, torch.tensor([label]), torch.tensor([share * math.log(classes)]), classes)


def stored(memory: CategoryBalancedMemory) -> list[tuple[int, int]]:
    """Names and ages."""
    images, ages = memory.contents()
    return [(int(image), round(float(age) * memory.capacity)) for image, age in zip(images, ages, strict=True)]


def test_sequence_by_hand():
    """Three places, two classes: a class has its share with 2 items, being not below 1.5. s(a) = 1 / (1 + e^(-a/3))."""
    memory = CategoryBalancedMemory(capacity=3)
    offer(memory, 1, label=0, share=0.2, classes=2)
    assert stored(memory) == [(1, 1)]
    offer(memory, 2, label=0, share=0.5, classes=2)
    assert stored(memory) == [(1, 2), (2, 1)]
    # Its class has its share: 1 scores s(2) + 0.2 = 0.861, 2 scores s(1) + 0.5 = 1.083, itself 0.5 + 0.1.
    offer(memory, 3, label=0, share=0.1, classes=2)
    assert stored(memory) == [(1, 3), (3, 1)]
    # Left out: 1 scores s(3) + 0.2 = 0.931, 3 scores 0.683, itself 1.4. The others grow older all the same.
    offer(memory, 4, label=0, share=0.9, classes=2)
    assert stored(memory) == [(1, 4), (3, 2)]
    offer(memory, 5, label=1, share=0.9, classes=2)
    assert stored(memory) == [(1, 5), (3, 3), (5, 1)]
    # Full, and its class below its share, so class 0 gives: 1 scores s(5) + 0.2 = 1.041, 3 scores 0.831, itself 0.8.
    offer(memory, 6, label=1, share=0.3, classes=2)
    assert stored(memory) == [(3, 4), (5, 2), (6, 1)]
    # Now class 1 is the largest: 5 scores s(2) + 0.9 = 1.561, 6 scores 0.883, itself 1.45.
    offer(memory, 7, label=0, share=0.95, classes=2)
    assert stored(memory) == [(3, 5), (7, 1), (6, 2)]
    assert memory.ages.sort().values.tolist() == [1, 2, 5]


def test_more_classes_than_places_leave_one_place_for_each_class():
    memory = CategoryBalancedMemory(capacity=2)
    offer(memory, 1, label=4, share=0.5, classes=5)
    offer(memory, 2, label=4, share=0.5, classes=5)
    assert stored(memory) == [(2, 1)], "the older of equally sure ones goes"
    offer(memory, 3, label=4, share=0.9, classes=5)
    assert stored(memory) == [(2, 2)]
    offer(memory, 4, label=0, share=0.5, classes=5)
    assert stored(memory) == [(4, 1), (2, 3)]


def test_of_equal_scores_the_highest_class_and_the_newest_item_go():
    classes = CategoryBalancedMemory(capacity=2, lambda_t=0.0)
    for name, label, share in ((1, 0, 0.5), (2, 1, 0.5), (3, 2, 0.1)):
        offer(classes, name, label, share, classes=3)
    assert [name for name, _ in stored(classes)] == [1, 3]
    items = CategoryBalancedMemory(capacity=4, lambda_t=0.0)
    for name, share in ((1, 0.5), (2, 0.5), (3, 0.1)):
        offer(items, name, 0, share, classes=2)
    assert [name for name, _ in stored(items)] == [1, 3]
    never = CategoryBalancedMemory(capacity=1, lambda_t=0.0, lambda_u=0.0)
    offer(never, 1, 0, 0.9, classes=2)
    offer(never, 2, 0, 0.1, classes=2)
    assert stored(never) == [(1, 2)], "an equal score is not a larger one"


class PlainMemory:
    """The published rules on lists of [name, uncertainty, age], one list a class. Shares no code with the library."""

    def __init__(self, capacity: int, classes: int) -> None:
        self.capacity, self.lists = capacity, [[] for _ in range(classes)]

    def score(self, uncertainty: float, age: int) -> float:
        return 1 / (1 + math.exp(-age / self.capacity)) + uncertainty / math.log(len(self.lists))

    def add(self, name: int, label: int, uncertainty: float) -> None:
        sizes = [len(items) for items in self.lists]
        if sizes[label] >= self.capacity / len(self.lists):
            givers = [label]
        elif sum(sizes) < self.capacity:
            givers = []
        else:
            givers = [number for number, size in enumerate(sizes) if size == max(sizes)]
        rivals = [
            (self.score(u, age), giver, number)
            for giver in givers
            for number, (_, u, age) in enumerate(self.lists[giver])
        ]
        if rivals and max(rivals)[0] > self.score(uncertainty, 0):
            _, giver, number = max(rivals)
            del self.lists[giver][number]
            rivals = []
        if not rivals:
            self.lists[label].append([name, uncertainty, 0])
        for items in self.lists:
            for item in items:
                item[2] += 1


@pytest.mark.parametrize(("capacity", "classes"), [(8, 5), (3, 5), (7, 2)])
def test_long_stream_in_batches_against_plain_lists(capacity, classes):
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(200, generator=generator) ** 2 * classes).long()
    uncertainties = torch.rand(200, generator=generator) * math.log(classes)
    images = torch.arange(200.0)[:, None]
    memory, plain = CategoryBalancedMemory(capacity), PlainMemory(capacity, classes)
    for rows in torch.arange(200).split(7):
        memory.add(images[rows], labels[rows], uncertainties[rows], classes)
        for row in rows.tolist():
            plain.add(row, int(labels[row]), float(uncertainties[row]))
        assert stored(memory) == [(name, age) for items in plain.lists for name, _, age in items]
    assert max(memory.labels.bincount()) <= math.ceil(capacity / classes)


def test_state_is_carried_from_any_filling_to_any_other():
    full, empty = CategoryBalancedMemory(3), CategoryBalancedMemory(3)
    blank = {name: tensor.clone() for name, tensor in empty.state_dict().items()}
    for name in range(4):
        offer(full, name, name % 2, 0.5, classes=2)
    file = io.BytesIO()
    torch.save(full.state_dict(), file)
    file.seek(0)
    empty.load_state_dict(torch.load(file, weights_only=True))
    assert stored(empty) == stored(full)
    full.clear()
    empty.load_state_dict(blank)
    for memory in (full, empty):
        assert stored(memory) == []
        assert all(torch.equal(tensor, blank[name]) for name, tensor in memory.state_dict().items())


def test_images_of_another_shape_are_refused():
    memory = CategoryBalancedMemory(3)
    offer(memory, 1, 0, 0.5, classes=2)
    with pytest.raises(tta.InputError, match=r"holds images of shape \(1,\) and got \(2,\): keep one size"):
        memory.add(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([0.1]), 2)
    assert stored(memory) == [(1, 1)]


@pytest.mark.parametrize("arguments", [{"capacity": 0}, {"lambda_t": -1.0}, {"lambda_u": float("nan")}])
def test_values_out_of_range(arguments):
    with pytest.raises(tta.InputError, match=next(iter(arguments))):
        CategoryBalancedMemory(**arguments)


def test_a_single_class_has_no_uncertainty():
    memory = CategoryBalancedMemory(2)
    memory.add(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), torch.zeros(3), 1)
    assert memory.ages.sort().values.tolist() == [1, 2]
