import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning import Callback, LightningModule, Trainer

from datamodules import SourceDataModule, StreamDataModule
from datamodules.datasets import TensorImages
from tta.errors import InputError

STREAM = TensorImages(torch.rand(23, 3, 8, 8, generator=torch.Generator().manual_seed(0)), np.arange(23) % 3)


class Stream(StreamDataModule):
    default_domains = ("clean", "gaussian_noise", "occlusion")
    class_names = ("a", "b", "c")

    def setup(self, stage=None):
        self.stream = self.source = self.heldout = STREAM


class Source(SourceDataModule):
    class_names = ("a", "b", "c", "d")

    def setup(self, stage=None):
        self.train = self.heldout = self.test = STREAM


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(192, 3)
        self.seen = []

    def training_step(self, batch, _):
        self.seen.append(batch["index"].tolist())
        return torch.nn.functional.cross_entropy(self.layer(batch["image"].flatten(1)), batch["label"])

    def validation_step(self, batch, _):
        pass

    def predict_step(self, batch, _):
        return batch["index"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveAt(Callback):
    def __init__(self, path, batch=None):
        self.path = path
        self.batch = batch

    def on_train_batch_end(self, trainer, module, *_):
        if len(module.seen) == self.batch:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer, _):
        if self.batch is None and trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def built(kind=Stream, **options):
    module = kind(**options)
    module.setup()
    return module


def same(left, right):
    return len(left) == len(right) and all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in zip(left, right, strict=True)
    )


def trainer(epochs=1, **options):
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def fit(module, data, epochs=1, callbacks=(), ckpt_path=None):
    options = {} if ckpt_path is None else {"ckpt_path": ckpt_path, "weights_only": True}
    trainer(epochs, callbacks=list(callbacks)).fit(module, data, **options)
    return module.seen


def test_facts_are_known_before_setup():
    module = Stream(severity=2)
    assert module.num_classes == 3
    assert module.domains == ["clean", "gaussian_noise:2", "occlusion:2"]


def test_batches_keep_the_contract():
    loaded = list(built(batch_size=5).train_dataloader())
    assert len(loaded) == len(built(batch_size=5).train_dataloader()) == 3 * 5
    for batch in loaded:
        size = len(batch["label"])
        assert batch["image"].shape == (size, 3, 8, 8)
        assert batch["image"].dtype == torch.float32
        assert 0 <= batch["image"].min() <= batch["image"].max() <= 1
        assert {batch[key].dtype for key in ("label", "domain", "index")} == {torch.int64}
        assert torch.equal(batch["label"], batch["index"] % 3)
        assert len(batch["domain"].unique()) == 1
    assert [len(batch["label"]) for batch in loaded[:5]] == [5, 5, 5, 5, 3]


@pytest.mark.parametrize("order", ["continual", "mixed", "label_sorted", "correlated"])
def test_two_runs_agree_and_all_three_loaders_are_the_stream(order):
    module = built(order=order, batch_size=7)
    first = list(module.train_dataloader())
    assert same(first, list(built(order=order, batch_size=7).train_dataloader()))
    assert same(first, list(module.test_dataloader()))
    assert same(first, list(module.predict_dataloader()))
    assert not same(first, list(built(order=order, batch_size=7, seed=1).train_dataloader()))


def by_key(loader):
    return {
        (index.item(), domain.item()): image
        for batch in loader
        for index, domain, image in zip(batch["index"], batch["domain"], batch["image"], strict=True)
    }


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"order": "mixed"}, {"num_workers": 2}, {"order": "correlated", "batch_size": 4}]
)
def test_an_image_does_not_depend_on_batch_order_or_workers(options):
    reference, other = by_key(built().train_dataloader()), by_key(built(**options).train_dataloader())
    assert reference.keys() == other.keys()
    assert all(torch.equal(reference[key], other[key]) for key in reference)


@settings(max_examples=15)
@given(st.integers(0, 14), st.sampled_from(["continual", "mixed"]))
def test_resuming_equals_going_on(stop, order):
    module = built(batch_size=5, order=order)
    assert_resumes(module, min(stop, len(module.train_dataloader()) - 1))


@pytest.mark.parametrize("stop", [1, 8, 14])
def test_resuming_with_workers_equals_going_on(stop):
    assert_resumes(built(batch_size=5, num_workers=2), stop)


def assert_resumes(module, stop):
    loader = module.train_dataloader()
    iterator = iter(loader)
    for _ in range(stop):
        next(iterator)
    stored = io.BytesIO()
    torch.save(loader.state_dict(), stored)
    rest = list(iterator)
    stored.seek(0)
    resumed = module.train_dataloader()
    resumed.load_state_dict(torch.load(stored, weights_only=True))
    assert same(list(resumed), rest)


def test_a_resumed_fit_sees_the_rest_of_the_stream(tmp_path):
    path = tmp_path / "stream.ckpt"
    whole = fit(Recorder(), Stream(batch_size=5), callbacks=[SaveAt(path, 6)])
    assert whole == [[index for index, _ in batch] for batch in built(batch_size=5).batches()]
    assert fit(Recorder(), Stream(batch_size=5), ckpt_path=path) == whole[6:]


@pytest.mark.parametrize(("batch", "num_workers"), [(7, 0), (5, 0), (None, 0), (7, 2), (None, 2)])
def test_a_resumed_source_training_sees_what_it_would_have_seen(tmp_path, batch, num_workers):
    path = tmp_path / "source.ckpt"
    whole = fit(Recorder(), Source(batch_size=5, num_workers=num_workers), epochs=3, callbacks=[SaveAt(path, batch)])
    resumed = fit(Recorder(), Source(batch_size=5, num_workers=num_workers), epochs=3, ckpt_path=path)
    assert resumed == whole[5 if batch is None else batch :]
    assert whole[:5] != whole[5:10]


def test_predict_gives_every_sample_once():
    batches = trainer().predict(Recorder(), Stream(domains=["clean"], batch_size=5))
    assert sorted(torch.cat(batches).tolist()) == list(range(23))


def test_ranks_share_the_stream():
    whole, parts = {key for batch in built(batch_size=5).batches() for key in batch}, []
    for rank in range(2):
        module = built(batch_size=5)
        module.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        parts.append(list(module.train_dataloader()))
    assert len(parts[0]) == len(parts[1])
    first, second = (set(by_key(part)) for part in parts)
    assert not first & second
    assert first | second == whole


def test_loading_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    list(built().train_dataloader())
    assert torch.equal(torch.get_rng_state(), state)


def test_fewer_samples_are_the_same_in_every_domain():
    kept = [set(), set(), set()]
    for batch in built(samples_per_domain=6).batches():
        for index, domain in batch:
            kept[domain].add(index)
    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]) == 6


def test_validation_shows_clean_images_in_order():
    loaded = by_index(built(batch_size=4).val_dataloader())
    assert list(loaded) == list(range(23))
    assert all(torch.equal(image, STREAM[index][0]) for index, image in loaded.items())


def by_index(loader):
    return {
        index.item(): image for batch in loader for index, image in zip(batch["index"], batch["image"], strict=True)
    }


def test_source_images_are_a_clean_seeded_subset():
    loaded = by_index(built(source_samples=9, batch_size=4).source_dataloader())
    assert len(loaded) == 9
    assert list(loaded) == list(by_index(built(source_samples=9).source_dataloader()))
    assert list(loaded) != list(by_index(built(source_samples=9, seed=1).source_dataloader()))
    assert all(torch.equal(image, STREAM[index][0]) for index, image in loaded.items())


def test_without_source_images_there_is_no_validation_and_a_clear_error():
    module = built()
    module.source = module.heldout = None
    assert module.val_dataloader() == []
    with pytest.raises(InputError, match="source_root"):
        module.source_dataloader()


def test_a_stream_without_validation_can_be_fitted():
    class Bare(Stream):
        def setup(self, stage=None):
            self.stream = STREAM

    assert len(fit(Recorder(), Bare(domains=["clean"], batch_size=5))) == 5


def test_an_empty_stream_is_refused():
    module = Stream()
    module.stream = TensorImages(torch.zeros(0, 3, 8, 8), np.zeros(0, dtype=np.int64))
    with pytest.raises(InputError, match="no image"):
        module.train_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: 0"),
        ({"gamma": 0.0}, "gamma: 0.0"),
        ({"order": "sorted"}, "Did you mean 'label_sorted'"),
        ({"severity": 6}, "severity: 6"),
        ({"domains": ["snow"]}, "domains: 'snow' is unknown"),
        ({"domains": ["jpeg", "jpeg:5"]}, "'jpeg:5' is given twice"),
        ({"domains": ["clean", "clean:3"]}, "'clean' is given twice"),
        ({"domains": []}, "empty"),
        ({"samples_per_domain": 0}, "samples_per_domain: 0"),
        ({"source_samples": 0}, "source_samples: 0"),
        ({"seed": -1}, "seed: -1"),
        ({"num_workers": -1}, "num_workers: -1"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        Stream(**options)
    assert "\n" not in str(caught.value)


def test_source_batches_have_no_domain():
    module = built(Source, batch_size=8)
    assert module.num_classes == 4
    assert Source().class_counts == [8, 8, 7, 0]
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        loaded = list(loader)
        assert set(loaded[0]) == {"image", "label", "index"}
        assert sum(len(batch["label"]) for batch in loaded) == 23


def test_source_training_refuses_an_empty_batch():
    with pytest.raises(InputError, match="batch_size"):
        Source(batch_size=0)
