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
