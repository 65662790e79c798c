import numpy as np
import pytest
import torch

from datamodules import DomainFolderSource, DomainSource
from datamodules.datasets import TensorImages
from datamodules.domain_source import DomainSubset
from tta.errors import InputError

SIZES = (14, 9, 20)
DOMAINS = ["photo", "sketch", "cartoon"]
BATCHES = ("mixed", "one_domain", "every_domain")


def grey(sizes=SIZES):
    """Images of as many domains; the shade is the domain, in tenths."""
    domain = np.arange(len(sizes)).repeat(sizes)
    images = torch.from_numpy(domain).float().view(-1, 1, 1, 1).expand(-1, 3, 8, 8) / 10
    return DomainSubset(TensorImages(images, np.arange(sum(sizes)) % 2), np.arange(sum(sizes)), domain)


class Source(DomainSource):
    class_names = ("a", "b")
    sizes = SIZES

    def __init__(self, domains=DOMAINS, **options):
        super().__init__(domains=domains, **({"batch_size": 6} | options))

    def setup(self, stage=None):
        self.train = grey(self.sizes)
        self.heldout = self.test = grey((2, 3, 1))


def built(**options):
    module = Source(**options)
    module.setup()
    return module


def same(left, right):
    return len(left) == len(right) and all(
        one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
        for one, other in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("batches", BATCHES)
def test_every_loader_tells_the_domain(batches):
    module = built(batches=batches)
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        for batch in loader:
            assert set(batch) == {"image", "label", "index", "domain"}
            assert batch["domain"].dtype == torch.int64
            assert batch["domain"].shape == batch["label"].shape
            assert torch.allclose(batch["image"][:, 0, 0, 0], batch["domain"] / 10)
    assert sum(len(batch["domain"]) for batch in module.val_dataloader()) == 6


def test_batches_are_what_was_asked_for():
    mixed, one, every = (list(built(batches=kind).train_dataloader()) for kind in BATCHES)
    assert sorted(torch.cat([batch["index"] for batch in mixed]).tolist()) == list(range(43))
    assert any(len(batch["domain"].unique()) > 1 for batch in mixed)
    assert [len(batch["domain"].unique()) for batch in one] == [1] * (2 + 1 + 3)
    assert [batch["domain"].tolist() for batch in every] == [[0, 0, 1, 1, 2, 2]] * 4


def test_mixed_batches_are_the_default():
    assert same(list(built().train_dataloader()), list(built(batches="mixed").train_dataloader()))


def test_domains_are_known_from_construction_and_sizes_once_read():
    module = Source()
    assert module.domains == DOMAINS
    assert module.domain_sizes() == dict(zip(DOMAINS, SIZES, strict=True))
    assert module.class_counts == [22, 21]


@pytest.mark.parametrize("batches", BATCHES)
def test_a_long_tail_is_of_all_domains_together(batches):
    module = built(imbalance="exponential", imbalance_ratio=2, batches=batches, batch_size=3)
    assert module.class_counts == [21, 10]
    assert sum(module.domain_sizes().values()) == 31
    loaded = list(module.train_dataloader())
    for batch in loaded:
        assert torch.allclose(batch["image"][:, 0, 0, 0], batch["domain"] / 10)
        assert torch.equal(batch["domain"], torch.from_numpy(module.training_images.domain)[batch["index"]])
        assert torch.equal(batch["label"], torch.from_numpy(module.training_images.labels)[batch["index"]])


@pytest.mark.parametrize("batches", ["one_domain", "every_domain"])
def test_workers_change_nothing(batches):
    alone, helped = (list(built(batches=batches, num_workers=workers).train_dataloader()) for workers in (0, 2))
    assert same(alone, helped)
    other = list(built(batches=batches, seed=1).train_dataloader())
    assert not same(alone, other)


@pytest.mark.parametrize("batches", ["one_domain", "every_domain"])
@pytest.mark.parametrize(("batch", "num_workers", "limit"), [(7, 0, 1.0), (None, 0, 1.0), (5, 0, 3), (7, 2, 1.0)])
def test_a_resumed_training_sees_what_it_would_have_seen(tmp_path, fit, batches, batch, num_workers, limit):
    options = {"batches": batches, "num_workers": num_workers}
    path = tmp_path / "source.ckpt"
    whole = fit(Source(**options), epochs=3, save=(path, batch), limit_train_batches=limit)
    resumed = fit(Source(**options), epochs=3, ckpt_path=path, limit_train_batches=limit)
    epoch = len(whole) // 3
    assert resumed == whole[epoch if batch is None else batch :]
    assert whole[:epoch] != whole[epoch : 2 * epoch]


def test_a_loader_that_is_resumed_without_a_trainer_goes_on():
    module = built(batches="one_domain")
    loader = module.train_dataloader()
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    state = loader.state_dict()
    rest = list(iterator)
    resumed = module.train_dataloader()
    resumed.load_state_dict(state)
    assert len(rest) == 4
    assert same(list(resumed), rest)


def test_one_domain_alone_is_enough_for_any_kind_of_batch():
    for kind in BATCHES:
        module = Source(["photo"], batches=kind)
        module.sizes = (14,)
        assert {len(batch["domain"]) for batch in module.train_dataloader()} <= {6, 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": "per_domain"}, "batches: 'per_domain' is unknown; choose one of every_domain, mixed, one_domain"),
        ({"domains": []}, "domains: the list is empty"),
        ({"domains": ["photo", "photo"]}, "domains: 'photo' is given twice"),
        (
            {"batches": "every_domain", "batch_size": 2},
            "batch_size: 2 is too small, the smallest allowed value is 3; every batch has images of all 3 domains",
        ),
        ({"batch_size": 0}, "batch_size: 0"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        Source(**options)
    assert "\n" not in str(caught.value)


def test_a_domain_without_images_is_refused():
    module = built(domains=[*DOMAINS, "clip"])
    assert module.domain_sizes()["clip"] == 0
    with pytest.raises(InputError, match="domains: 'clip' has no image to train on"):
        module.train_dataloader()


def test_a_domain_that_fills_no_batch_is_refused():
    with pytest.raises(InputError, match="batch_size: 10 takes 10 images of one domain, but 'sketch' has 9"):
        built(batches="one_domain", batch_size=10).train_dataloader()


@pytest.fixture
def root(tmp_path, write_images):
    """Two domains with two classes of 10 and of 15 grey images each; a domain's number is its brightness."""
    for number, domain in enumerate(("art", "photo"), 1):
        for name in ("dog", "horse"):
            write_images(tmp_path / domain / name, 5 + 5 * number, 20 * number, (12, 10))
    return tmp_path


def test_domain_folders_are_numbered_as_they_are_given(root):
    module = DomainFolderSource(str(root), ["photo", "art"], 8, batches="every_domain", batch_size=8, augment=False)
    assert module.domains == ["photo", "art"]
    assert module.domain_sizes() == {"photo": 24, "art": 16}
    loaded = list(module.train_dataloader())
    assert [batch["domain"].tolist() for batch in loaded] == [[0] * 4 + [1] * 4] * 4
    for batch in (*loaded, *module.val_dataloader(), *module.test_dataloader()):
        assert torch.allclose(batch["image"], torch.tensor([40 / 255, 20 / 255])[batch["domain"]].view(-1, 1, 1, 1))
    assert torch.cat([batch["domain"] for batch in module.val_dataloader()]).bincount().tolist() == [6, 4]


def test_domain_folders_refuse_unknown_batches(root):
    with pytest.raises(InputError, match="batches: 'both' is unknown"):
        DomainFolderSource(str(root), ["photo", "art"], batches="both")
