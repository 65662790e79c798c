from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datamodules import SourceDataModule
from datamodules.datasets import TensorImages
from tta.errors import InputError

IMAGES = TensorImages(torch.rand(23, 3, 8, 8, generator=torch.Generator().manual_seed(0)), np.arange(23) % 3)


class Source(SourceDataModule):
    class_names = ("a", "b", "c", "d")

    def setup(self, stage=None):
        self.train = self.heldout = self.test = IMAGES


class LongTailedSource(SourceDataModule):
    class_names = ("a", "b", "c")

    def setup(self, stage=None):
        labels = np.repeat(np.arange(3), 40)
        self.train = self.heldout = self.test = TensorImages(torch.arange(120.0).reshape(120, 1, 1, 1) / 120, labels)


def built(kind=Source, **options):
    module = kind(**options)
    module.setup()
    return module


@pytest.mark.parametrize(("batch", "num_workers"), [(7, 0), (5, 0), (None, 0), (7, 2), (None, 2)])
def test_a_resumed_source_training_sees_what_it_would_have_seen(tmp_path, fit, batch, num_workers):
    path = tmp_path / "source.ckpt"
    whole = fit(Source(batch_size=5, num_workers=num_workers), epochs=3, save=(path, batch))
    resumed = fit(Source(batch_size=5, num_workers=num_workers), epochs=3, ckpt_path=path)
    assert resumed == whole[5 if batch is None else batch :]
    assert whole[:5] != whole[5:10]


def test_workers_change_neither_the_images_of_an_epoch_nor_their_order(fit):
    alone, helped = (fit(Source(batch_size=5, num_workers=workers), epochs=2) for workers in (0, 2))
    assert alone == helped
    loader = built(batch_size=5, num_workers=2).train_dataloader()
    assert [batch["index"].tolist() for _ in range(2) for batch in loader] == alone


def test_source_batches_have_no_domain():
    module = built(batch_size=8)
    assert module.num_classes == 4
    assert Source().class_counts == [8, 8, 7, 0]
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        loaded = list(loader)
        assert set(loaded[0]) == {"image", "label", "index"}
        assert sum(len(batch["label"]) for batch in loaded) == 23


def shared(rank, processes):
    """The source as one of several processes sees it."""
    progress = SimpleNamespace(state_dict=lambda: {"current": {"processed": 0}})
    module = built(batch_size=4)
    module.trainer = SimpleNamespace(
        global_rank=rank, world_size=processes, fit_loop=SimpleNamespace(epoch_progress=progress)
    )
    return module


def seen(loader):
    return [index for batch in loader for index in batch["index"].tolist()]


def test_processes_share_the_source():
    """23 images: in training two are left out of an epoch, held-out ones fill up with the first."""
    parts = [shared(rank, 3) for rank in range(3)]
    trained = [index for part in parts for index in seen(part.train_dataloader())]
    assert len(set(trained)) == len(trained) == 21
    assert sorted(index for part in parts for index in seen(part.val_dataloader())) == sorted([*range(23), 0])


def test_more_processes_than_images_are_refused():
    with pytest.raises(InputError, match="24 processes cannot share 23 training images: use fewer devices"):
        shared(0, 24).train_dataloader()


def test_source_training_refuses_an_empty_batch():
    with pytest.raises(InputError, match="batch_size"):
        Source(batch_size=0)


@pytest.mark.parametrize(("kind", "counts"), [("exponential", [40, 12, 4]), ("step", [40, 4, 4])])
def test_a_source_can_be_long_tailed(kind, counts):
    module = built(LongTailedSource, imbalance=kind, imbalance_ratio=10, batch_size=7)
    assert module.class_counts == counts
    loaded = list(module.train_dataloader())
    labels = torch.cat([batch["label"] for batch in loaded])
    assert labels.bincount().tolist() == counts
    assert sum(len(batch["label"]) for batch in module.val_dataloader()) == 120


def test_the_long_tail_is_chosen_by_its_own_seed():
    def shown(**options):
        loader = built(LongTailedSource, imbalance="exponential", imbalance_ratio=10, **options).train_dataloader()
        return sorted(torch.cat([batch["image"].flatten() for batch in loader]).tolist())

    assert shown(seed=0) == shown(seed=5)
    assert shown() != shown(imbalance_seed=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imbalance": "linear"}, "imbalance: 'linear' is unknown; choose exponential, step"),
        ({"imbalance": "step", "imbalance_ratio": 0.5}, "imbalance_ratio: 0.5"),
        ({"imbalance_seed": -1}, "imbalance_seed: -1"),
        ({"prefetch_factor": 0}, "prefetch_factor: 0"),
        ({"num_workers": -1}, "num_workers: -1"),
        ({"seed": -1}, "seed: -1"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        Source(**options)
    assert "\n" not in str(caught.value)
