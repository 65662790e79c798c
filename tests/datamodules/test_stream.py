from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import (
    CorruptedStream,
    Dirichlet,
    Domain,
    Drift,
    Gradual,
    LongTailed,
    Recurring,
    Sorted,
    StreamDataModule,
    corrupt,
)
from datamodules.datasets import TensorImages
from tta.errors import InputError

IMAGES = TensorImages(torch.rand(23, 3, 8, 8, generator=torch.Generator().manual_seed(0)), np.arange(23) % 3)
STREAMS = {
    "continual": {},
    "mixed": {"order": "mixed"},
    "correlated": {"labels": Dirichlet(0.1)},
    "mixed correlated": {"order": "mixed", "labels": Dirichlet(0.1)},
    "sorted": {"labels": Sorted()},
    "long-tailed": {"labels": LongTailed(2)},
    "recurring": {"covariate": Recurring(2)},
    "gradual": {"covariate": Gradual((1, 3, 1)), "domains": ["gaussian_noise", "occlusion"]},
    "drift": {"covariate": Drift(4), "domains": ["gaussian_noise", "occlusion"]},
    "hidden boundaries": {"boundaries": "hidden"},
    "batch size one": {"batch_size": 1},
}


class Stream(CorruptedStream):
    default_domains = ("clean", "gaussian_noise", "occlusion")
    default_levels = "digits"
    class_names = ("a", "b", "c")

    def setup(self, stage=None):
        self.stream = self.source = self.heldout = IMAGES


class Stored(StreamDataModule):
    """Domains with images of their own."""

    class_names = ("a", "b")
    sizes = MappingProxyType({"photo": 9, "sketch": 6})

    def available_domains(self):
        return list(self.sizes)

    def check_domain(self, text):
        if text not in self.sizes:
            raise InputError(f"domains: {text!r} is unknown.")
        return text

    def images_of(self, condition):
        size = self.sizes[condition]
        return TensorImages(torch.full((size, 3, 8, 8), size / 10), np.arange(size) % 2)


def built(kind=Stream, **options):
    module = kind(**({"batch_size": 5} | options))
    module.setup("fit")
    return module


def same(left, right):
    return len(left) == len(right) and all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in zip(left, right, strict=True)
    )


def by_key(loader):
    return {
        (index.item(), condition.item()): image
        for batch in loader
        for index, condition, image in zip(batch["index"], batch["condition"], batch["image"], strict=True)
    }


def test_facts_are_known_before_setup():
    module = Stream(severity=2)
    assert module.num_classes == 3
    assert module.domains == module.conditions == ["clean", "gaussian_noise:2", "occlusion:2"]
    assert module.severities() == [{}, {"gaussian_noise": 2.0}, {"occlusion": 2.0}]


def test_a_domain_can_have_many_conditions():
    module = Stream(covariate=Drift(2), domains=["gaussian_noise:4", "occlusion:2"])
    assert module.domains == ["gaussian_noise>occlusion"]
    assert module.conditions == ["gaussian_noise:4", "gaussian_noise:2+occlusion:1", "occlusion:2"]
    assert module.severities()[1] == {"gaussian_noise": 2.0, "occlusion": 1.0}


def test_batches_keep_the_contract():
    loaded = list(built().train_dataloader())
    assert len(loaded) == len(built().train_dataloader()) == 3 * 5
    for batch in loaded:
        size = len(batch["label"])
        assert batch["image"].shape == (size, 3, 8, 8)
        assert batch["image"].dtype == torch.float32
        assert 0 <= batch["image"].min() <= batch["image"].max() <= 1
        assert {batch[key].dtype for key in ("label", "domain", "condition", "index")} == {torch.int64}
        assert torch.equal(batch["label"], batch["index"] % 3)
        assert len(batch["domain"].unique()) == 1
    assert [len(batch["label"]) for batch in loaded[:5]] == [5, 5, 5, 5, 3]


def test_hidden_boundaries_give_whole_batches_that_straddle_domains():
    loaded = list(built(boundaries="hidden").train_dataloader())
    assert [len(batch["label"]) for batch in loaded] == [5] * 13 + [4]
    assert any(len(batch["domain"].unique()) == 2 for batch in loaded)


@pytest.mark.parametrize("stream", STREAMS)
def test_two_runs_agree_and_all_three_loaders_are_the_stream(stream):
    module = built(**STREAMS[stream])
    first = list(module.train_dataloader())
    assert same(first, list(built(**STREAMS[stream]).train_dataloader()))
    assert same(first, list(module.test_dataloader()))
    assert same(first, list(module.predict_dataloader()))
    assert not same(first, list(built(**STREAMS[stream], seed=1).train_dataloader()))


@pytest.mark.parametrize("stream", STREAMS)
def test_the_loader_shows_what_the_plan_says(stream):
    module = built(**STREAMS[stream])
    plan, loaded = module.plan(), list(module.train_dataloader())
    for key in ("index", "label", "condition", "domain"):
        assert torch.cat([batch[key] for batch in loaded]).tolist() == getattr(plan, key).tolist()
    positions = [0, 7, len(plan.index) - 1]
    assert torch.equal(module.images_at(positions), torch.cat([batch["image"] for batch in loaded])[positions])
    assert (plan.conditions, plan.domains) == (module.conditions, module.domains)


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"order": "mixed"}, {"num_workers": 2}, {"labels": Sorted()}])
def test_an_image_does_not_depend_on_batch_order_or_workers(options):
    reference, other = by_key(built().train_dataloader()), by_key(built(**options).train_dataloader())
    assert reference.keys() == other.keys()
    assert all(torch.equal(reference[key], other[key]) for key in reference)


@pytest.mark.parametrize("order", ["continual", "mixed"])
def test_corrupting_on_the_device_gives_the_same_stream(order, predict):
    options = {"order": order, "domains": ["gaussian_noise", "occlusion:2+contrast:3"]}
    there = predict(Stream(**options, batch_size=5, corrupt_on="device"))
    assert same(there, list(built(**options).train_dataloader()))


def test_images_are_what_the_corruptions_make_of_them():
    shown = by_key(built(domains=["gaussian_noise:3+contrast:2"], seed=4).train_dataloader())
    domain = Domain((("gaussian_noise", 3.0), ("contrast", 2.0)))
    assert torch.equal(shown[(7, 0)], corrupt(IMAGES[7][0][None], domain, 4, [7], "digits")[0])


def test_a_resumed_fit_sees_the_rest_of_the_stream(tmp_path, fit):
    path = tmp_path / "stream.ckpt"
    whole = fit(Stream(batch_size=5), save=(path, 6))
    plan = built().plan()
    assert whole == [[index for index, _, _ in plan.batch(number)] for number in range(len(plan))]
    assert fit(Stream(batch_size=5), ckpt_path=path) == whole[6:]
    assert fit(Stream(batch_size=5, num_workers=2), ckpt_path=path) == whole[6:]


def test_predict_gives_every_sample_once(predict):
    batches = predict(Stream(domains=["clean"], batch_size=5))
    assert sorted(torch.cat([batch["index"] for batch in batches]).tolist()) == list(range(23))


def samples(columns):
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


@settings(max_examples=20)
@given(st.sampled_from(sorted(STREAMS)), st.integers(1, 4), st.integers(0, 99))
def test_ranks_share_the_stream(stream, processes, seed):
    options = STREAMS[stream] | {"seed": seed}
    keys = ("index", "condition", "domain")
    parts = []
    for rank in range(processes):
        module = built(**options)
        module.trainer = SimpleNamespace(global_rank=rank, world_size=processes)
        parts.append(list(module.train_dataloader()))
    assert len({len(part) for part in parts}) == 1
    shown = [sample for part in parts for batch in part for sample in samples(batch[key] for key in keys)]
    plan = built(**options).plan()
    assert sorted(shown) == samples(getattr(plan, key) for key in keys)


def test_loading_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    list(built().train_dataloader())
    assert torch.equal(torch.get_rng_state(), state)


def test_fewer_samples_are_the_same_in_every_domain():
    plan = built(samples_per_domain=6).plan()
    kept = [set(plan.index[plan.domain == domain].tolist()) for domain in range(3)]
    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]) == 6


def test_domains_with_images_of_their_own():
    module = built(Stored, batch_size=3, covariate=Recurring(2))
    loaded = list(module.train_dataloader())
    sizes = torch.cat([batch["image"][:, 0, 0, 0] * 10 for batch in loaded]).round().int().tolist()
    assert sizes == [9] * 9 + [6] * 6 + [9] * 9 + [6] * 6
    assert module.domains == ["photo", "sketch"]
    assert module.severities() == [{}, {}]


def test_a_stored_domain_cannot_drift():
    with pytest.raises(InputError, match="severity"):
        Stored(covariate=Drift(3))


def test_validation_shows_clean_images_in_order():
    loaded = by_index(built(batch_size=4).val_dataloader())
    assert list(loaded) == list(range(23))
    assert all(torch.equal(image, IMAGES[index][0]) for index, image in loaded.items())


def by_index(loader):
    return {
        index.item(): image for batch in loader for index, image in zip(batch["index"], batch["image"], strict=True)
    }


def test_source_images_are_a_clean_seeded_subset():
    loaded = by_index(built(source_samples=9, batch_size=4).source_dataloader())
    assert len(loaded) == 9
    assert list(loaded) == list(by_index(built(source_samples=9).source_dataloader()))
    assert list(loaded) != list(by_index(built(source_samples=9, seed=1).source_dataloader()))
    assert all(torch.equal(image, IMAGES[index][0]) for index, image in loaded.items())


def test_without_source_images_there_is_no_validation_and_a_clear_error():
    module = built()
    module.source = module.heldout = None
    assert module.val_dataloader() == []
    with pytest.raises(InputError, match="source_root"):
        module.source_dataloader()


def test_a_stream_without_validation_can_be_fitted(fit):
    class Bare(Stream):
        def setup(self, stage=None):
            self.stream = IMAGES

    assert len(fit(Bare(domains=["clean"], batch_size=5))) == 5


def test_an_empty_stream_is_refused():
    module = Stream()
    module.stream = TensorImages(torch.zeros(0, 3, 8, 8), np.zeros(0, dtype=np.int64))
    with pytest.raises(InputError, match="no image"):
        module.train_dataloader()


def test_a_stream_shorter_than_one_batch_is_refused():
    with pytest.raises(InputError, match="batch_size: 70 is more than the 69 images"):
        built(batch_size=70).train_dataloader()


def test_the_schedule_in_words():
    assert Stream().schedule == "continual"
    assert Stream(order="mixed", labels=Dirichlet()).schedule == "mixed, Dirichlet"
    words = Stream(covariate=Recurring(3), labels=Dirichlet(0.5), boundaries="hidden").schedule
    assert words == "continual, Recurring(times=3), Dirichlet(gamma=0.5), hidden boundaries"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: 0"),
        ({"order": "mixd"}, "Did you mean 'mixed'"),
        ({"boundaries": "open"}, "boundaries: 'open' is unknown; choose one of hidden, known"),
        ({"severity": 6}, "severity: 6"),
        ({"domains": ["snowy"]}, "domains: 'snowy' is unknown"),
        ({"domains": ["occlusion", "occlusion:5"]}, "'occlusion:5' is given twice"),
        ({"domains": ["clean", "clean:3"]}, "'clean' is given twice"),
        ({"domains": []}, "empty"),
        ({"samples_per_domain": 0}, "samples_per_domain: 0"),
        ({"source_samples": 0}, "source_samples: 0"),
        ({"label_delay": -1}, "label_delay: -1"),
        ({"levels": "128"}, "levels: '128' is unknown"),
        ({"corrupt_on": "gpu"}, "corrupt_on: 'gpu' is unknown; choose one of device, loader"),
        ({"levels": "32", "domains": ["occlusion"]}, "'occlusion' is unknown"),
        ({"seed": -1}, "seed: -1"),
        ({"num_workers": -1}, "num_workers: -1"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        Stream(**options)
    assert "\n" not in str(caught.value)
