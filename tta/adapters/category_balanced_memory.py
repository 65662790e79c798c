"""RoTTA's memory of a stream: balanced over predicted classes, fresh, and sure."""

import math
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from tta.errors import InputError
from tta.growing_buffers import GrowingBuffers


@dataclass
class _Item:
    label: int
    uncertainty: float
    age: int
    row: int | None = None
    """Row of the batch that brought it; ``None`` for what was there before."""


class CategoryBalancedMemory(GrowingBuffers):
    r"""Category-balanced sampling with timeliness and uncertainty (CSTU).

    Each of ``C`` predicted classes may hold items as long as it has fewer than ``capacity / C`` (which need not be a
    whole number: with more classes than places every class holds one at most). An item is the worse the older and the
    less certain it is, by its score :math:`\lambda_t / (1 + e^{-\text{age} / N}) + \lambda_u H / \ln C`, with N the
    capacity. A new sample

    - of a class below its share takes a free place, or that of the worst item of the largest classes;
    - of a class that has its share takes the place of the worst item of its own class;

    and in both cases takes another's place only if that one's score is larger than its own; else it is left out. Then
    all items, the new one too, grow older by one. Of equal scores the highest class and in it the newest item counts
    as the worst, as in the authors' code.

    All state is in buffers: ``images`` (N, ...), ``labels`` (N,) int64 with ``-1`` for a free place, ``uncertainties``
    (N,) float32, ``ages`` (N,) int64.

    Args:
        capacity: Places, at least 1.
        lambda_t: Weight of age, at least 0.
        lambda_u: Weight of uncertainty, at least 0.

    Raises:
        InputError: For a value out of range.
    """

    images: Tensor
    labels: Tensor
    uncertainties: Tensor
    ages: Tensor

    def __init__(self, capacity: int = 64, lambda_t: float = 1.0, lambda_u: float = 1.0) -> None:
        super().__init__()
        if capacity < 1:
            raise InputError(f"capacity={capacity}: need capacity >= 1")
        if not lambda_t >= 0.0 or not lambda_u >= 0.0:
            raise InputError(f"lambda_t={lambda_t}, lambda_u={lambda_u}: need both >= 0")
        self.capacity = capacity
        self.lambda_t = lambda_t
        self.lambda_u = lambda_u
        self.register_buffer("images", torch.empty(0))
        self.register_buffer("labels", torch.full((capacity,), -1))
        self.register_buffer("uncertainties", torch.zeros(capacity))
        self.register_buffer("ages", torch.zeros(capacity, dtype=torch.int64))

    @property
    def filled(self) -> bool:
        """Whether it holds anything."""
        return bool((self.labels >= 0).any())

    def clear(self) -> None:
        """Forget everything."""
        self.images = self.images.new_empty(0)
        self.labels.fill_(-1)
        self.uncertainties.zero_()
        self.ages.zero_()

    def check(self, images: Tensor) -> None:
        """Whether these could stand beside what is stored.

        Raises:
            InputError: If they are of another shape.
        """
        if self.images.numel() and self.images.shape[1:] != images.shape[1:]:
            raise InputError(
                f"the memory holds images of shape {tuple(self.images.shape[1:])} and got {tuple(images.shape[1:])}: "
                "keep one size within a stream, or reset the method first"
            )

    def add(self, images: Tensor, labels: Tensor, uncertainties: Tensor, num_classes: int) -> None:
        """Offer the samples of a batch, one after the other.

        Args:
            images: Shape ``(B, ...)``.
            labels: Predicted classes, shape ``(B,)``, int64.
            uncertainties: Entropies in nats, shape ``(B,)``.
            num_classes: ``C``.

        Raises:
            InputError: If the images are of another shape than those stored.
        """
        self.check(images)
        if not self.images.numel():
            self.images = images.new_zeros((self.capacity, *images.shape[1:]))
        items = self._items()
        for row, (label, uncertainty) in enumerate(zip(labels.tolist(), uncertainties.tolist(), strict=True)):
            new = _Item(label, uncertainty, 0, row)
            place = self._place(items, new, num_classes)
            if place is not None:
                items[place] = new
            for item in items.values():
                item.age += 1
        self._store(items, images)

    def contents(self) -> tuple[Tensor, Tensor]:
        """What is stored, by class and within it from old to new.

        Returns:
            Images, shape ``(M, ...)``, and their ages as shares of the capacity, shape ``(M,)``, float32.
        """
        items = self._items()
        places = sorted(items, key=lambda place: (items[place].label, -items[place].age))
        chosen = torch.tensor(places, dtype=torch.int64, device=self.labels.device)
        return self.images[chosen], self.ages[chosen].float() / self.capacity

    def _items(self) -> dict[int, _Item]:
        rows = zip(self.labels.tolist(), self.uncertainties.tolist(), self.ages.tolist(), strict=True)
        return {place: _Item(*row) for place, row in enumerate(rows) if row[0] >= 0}

    def _place(self, items: dict[int, _Item], new: _Item, num_classes: int) -> int | None:
        counts = Counter(item.label for item in items.values())
        if counts[new.label] < self.capacity / num_classes:
            if len(items) < self.capacity:
                return next(place for place in range(self.capacity) if place not in items)
            largest = max(counts.values())
            rivals = [place for place, item in items.items() if counts[item.label] == largest]
        else:
            rivals = [place for place, item in items.items() if item.label == new.label]
        scores = {place: self._score(items[place], num_classes) for place in rivals}
        worst = max(rivals, key=lambda place: (scores[place], items[place].label, -items[place].age))
        return worst if scores[worst] > self._score(new, num_classes) else None

    def _score(self, item: _Item, num_classes: int) -> float:
        timeliness = self.lambda_t / (1.0 + math.exp(-item.age / self.capacity))
        return timeliness + self.lambda_u * item.uncertainty / math.log(max(num_classes, 2))

    def _store(self, items: dict[int, _Item], images: Tensor) -> None:
        taken = {place: item.row for place, item in items.items() if item.row is not None}
        if taken:
            places = torch.tensor(list(taken), device=self.images.device)
            rows = torch.tensor(list(taken.values()), device=images.device)
            self.images[places] = images.detach()[rows].to(self.images.dtype)
        empty = _Item(-1, 0.0, 0)
        stored = [items.get(place, empty) for place in range(self.capacity)]
        self.labels.copy_(torch.tensor([item.label for item in stored]))
        self.uncertainties.copy_(torch.tensor([item.uncertainty for item in stored]))
        self.ages.copy_(torch.tensor([item.age for item in stored]))
