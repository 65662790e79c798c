import io

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.datasets import StreamDataset, TensorImages, whole
from datamodules.loader import BatchKeys, StreamLoader

IMAGES = TensorImages(torch.rand(120, 1, 2, 2, generator=torch.Generator().manual_seed(0)), np.arange(120) % 3)


class Planned:
    def __len__(self):
        return 60

    def batch(self, number):
        return [(2 * number, 0, 0), (2 * number + 1, 0, 0)]


def loader(num_workers=0):
    return StreamLoader(
        StreamDataset([IMAGES]), batch_sampler=BatchKeys(Planned()), collate_fn=whole, num_workers=num_workers
    )


def indices(batches):
    return [batch["index"].tolist() for batch in batches]


WHOLE = [[2 * number, 2 * number + 1] for number in range(60)]


def saved_after(stop, num_workers=0):
    stream = loader(num_workers)
    iterator = iter(stream)
    for _ in range(stop):
        next(iterator)
    stored = io.BytesIO()
    torch.save(stream.state_dict(), stored)
    stored.seek(0)
    return torch.load(stored, weights_only=True)


def resumed(state, num_workers=0):
    stream = loader(num_workers)
    stream.load_state_dict(state)
    return indices(stream)


@settings(max_examples=50)
@given(st.integers(0, 59))
def test_resuming_at_any_batch_equals_going_on(stop):
    assert resumed(saved_after(stop)) == WHOLE[stop:]


def test_the_number_of_workers_may_change():
    states = [saved_after(7, num_workers) for num_workers in (0, 1, 2)]
    assert states[0] == states[1] == states[2]
    for num_workers in (0, 2):
        assert resumed(states[1], num_workers) == WHOLE[7:]


def test_a_second_pass_starts_over():
    stream = loader()
    assert indices(stream) == WHOLE
    assert indices(stream) == WHOLE
    assert len(stream) == 60


def test_a_state_may_be_loaded_into_an_iterator_that_has_not_started():
    stream = loader()
    iterator = iter(stream)
    stream.load_state_dict({"given": 50})
    assert indices(iterator) == WHOLE[50:]
