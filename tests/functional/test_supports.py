"""Which samples enter bounded supports, against sorting each class by itself."""

import math

import torch

from tta.functional import support_replacements


def test_replacements_by_hand():
    """Class 0 is full and takes one of two; class 1 has a free place and takes it and the worse one; class 2 rests."""
    stored = torch.tensor([[0.5, 0.2], [math.inf, 0.9], [0.1, 0.3]])
    entropies = torch.tensor([0.8, 0.3, 0.4, 0.6])
    labels = torch.tensor([1, 0, 1, 0])
    places, samples = support_replacements(stored, entropies, labels)
    changed = stored.flatten().clone()
    changed[places] = entropies[samples]
    assert sorted(samples.tolist()) == [0, 1, 2]
    assert changed.view(3, 2)[0].sort().values.tolist() == torch.tensor([0.2, 0.3]).tolist()
    assert changed.view(3, 2)[1].sort().values.tolist() == torch.tensor([0.4, 0.8]).tolist()
    assert torch.equal(changed.view(3, 2)[2], stored[2])


def test_many_batches_keep_what_sorting_each_class_keeps():
    generator = torch.Generator().manual_seed(0)
    stored = torch.full((7, 4), math.inf)
    owners = torch.full((7, 4), -1)
    seen: list[tuple[float, int]] = []
    for size in (1, 5, 30, 0, 3, 60):
        entropies = torch.rand(size, generator=generator)
        labels = torch.randint(6, (size,), generator=generator)
        places, samples = support_replacements(stored, entropies, labels)
        assert len(places.unique()) == len(places)
        stored.view(-1)[places] = entropies[samples]
        owners.view(-1)[places] = labels[samples]
        seen += zip(entropies.tolist(), labels.tolist(), strict=True)
        for label in range(7):
            kept = sorted(value for value in stored[label].tolist() if value < math.inf)
            assert kept == sorted(value for value, owner in seen if owner == label)[:4]
            assert all(owner in (-1, label) for owner in owners[label].tolist())


def test_at_equal_entropy_the_earlier_sample_stays():
    stored = torch.tensor([[0.5, 0.5]])
    places, samples = support_replacements(stored, torch.tensor([0.5, 0.5]), torch.tensor([0, 0]))
    assert len(places) == len(samples) == 0
    stored = torch.tensor([[0.5, math.inf]])
    places, samples = support_replacements(stored, torch.tensor([0.4, 0.4, 0.4]), torch.tensor([0, 0, 0]))
    assert sorted(places.tolist()) == [0, 1]
    assert sorted(samples.tolist()) == [0, 1]
