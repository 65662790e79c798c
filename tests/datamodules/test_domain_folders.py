import shutil

import numpy as np
import pytest
import torch

from datamodules.domain_folders import DomainFolderSource, DomainFolderStream
from tta.errors import InputError

DOMAINS = ("art", "cartoon", "photo", "sketch")


@pytest.fixture
def root(tmp_path, write_images):
    """Four domains with two classes of ten grey images each; a domain's number is its brightness."""
    for brightness, domain in enumerate(DOMAINS):
        for name in ("dog", "horse"):
            write_images(tmp_path / domain / name, 10, 20 * (brightness + 1), (12, 10))
    return tmp_path


def stream(root, **options):
    module = DomainFolderStream(str(root), image_size=8, batch_size=7, **options)
    module.setup()
    return module


def test_the_stream_shows_the_target_domains_in_turn(root):
    module = stream(root, domains=["sketch", "art"])
    batches = list(module.train_dataloader())
    assert module.domains == ["sketch", "art"]
    assert module.class_names == ["dog", "horse"]
    assert torch.cat([batch["domain"] for batch in batches]).tolist() == [0] * 20 + [1] * 20
    for batch in batches:
        assert batch["image"].shape[1:] == (3, 8, 8)
        assert torch.allclose(batch["image"], torch.tensor([80 / 255, 20 / 255])[batch["domain"]].view(-1, 1, 1, 1))
    assert torch.cat([batch["label"] for batch in batches]).bincount().tolist() == [20, 20]
    assert module.val_dataloader() == []
    assert module.severities() == [{}, {}]


def test_the_targets_are_by_default_all_domains_but_the_sources(root):
    assert stream(root).domains == list(DOMAINS)
    assert stream(root, source_domains=["photo"]).domains == ["art", "cartoon", "sketch"]


def test_training_and_stream_hold_out_the_same_share_of_each_class_of_each_domain(root):
    options = {"source_domains": ["art", "photo"], "val_share": 0.3, "split_seed": 3}
    source = DomainFolderSource(str(root), image_size=8, **options)
    source.setup()
    module = stream(root, **options)
    assert source.class_counts == [14, 14]
    assert np.bincount(source.train.data.folder[source.train.indices]).tolist() == [7, 7, 7, 7]
    assert source.heldout.indices.tolist() == module.heldout.indices.tolist()
    assert source.train.indices.tolist() == module.source.indices.tolist()
    assert sum(len(batch["label"]) for batch in module.source_dataloader()) == 28
    assert sum(len(batch["label"]) for batch in module.val_dataloader()) == 12
    assert next(iter(source.train_dataloader()))["image"].shape == (28, 3, 8, 8)


def test_images_of_a_domain_are_listed_once(root):
    module = stream(root, domains=["art"])
    assert module.images_of("art") is module.images_of("art")
    source = DomainFolderSource(str(root), ["art"])
    source.setup()
    first = source.train
    source.setup()
    assert source.train is first


def test_unreadable_images_of_a_domain_can_be_skipped(root):
    (root / "art" / "dog" / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"art/dog/0\.png"):
        list(stream(root, domains=["art"]).train_dataloader())
    module = stream(root, domains=["art"], unreadable="skip")
    with pytest.warns(UserWarning, match="1 of 20 images"):
        assert sum(len(batch["label"]) for batch in module.train_dataloader()) == 19


def test_unknown_and_source_domains_are_refused(root):
    with pytest.raises(InputError, match=r"domains: 'sketches' is unknown; choose one of art, .*'sketch'\?"):
        stream(root, domains=["sketches"])
    with pytest.raises(InputError, match="source_domains: 'foto' is unknown"):
        stream(root, source_domains=["foto"])
    with pytest.raises(InputError, match="domains: 'art' is one of the source_domains; choose from cartoon, photo"):
        stream(root, domains=["art"], source_domains=["art"])
    with pytest.raises(InputError, match="source_domains: the list is empty"):
        DomainFolderSource(str(root), [])


@pytest.mark.parametrize("kind", [DomainFolderSource, DomainFolderStream])
def test_domains_with_different_classes_are_refused(root, kind):
    shutil.move(root / "photo" / "dog", root / "photo" / "guitar")
    with pytest.raises(InputError, match=r"'art' lacks \['guitar'\]; 'photo' lacks \['dog'\]"):
        kind(str(root), source_domains=["art", "photo"])
    kind(str(root), source_domains=["art"], **({"domains": ["sketch"]} if kind is DomainFolderStream else {}))


def test_an_empty_class_is_refused(root):
    shutil.rmtree(root / "art" / "dog")
    (root / "art" / "dog").mkdir()
    with pytest.raises(InputError, match=r"no image in 1 of 2 class folders, such as '.*art/dog'"):
        stream(root, domains=["art"]).images_of("art")


@pytest.mark.parametrize("kind", [DomainFolderSource, DomainFolderStream])
def test_a_missing_tree_says_where_it_looked_and_what_to_do(kind, tmp_path):
    missing = tmp_path / "nowhere"
    with pytest.raises(InputError, match=rf"root: .*looked at {missing}.*ROOT/DOMAIN/CLASS/IMAGE"):
        kind(str(missing), source_domains=["art"])


@pytest.mark.parametrize("kind", [DomainFolderSource, DomainFolderStream])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 1}, "image_size"),
        ({"resize": 100}, "resize"),
        ({"val_share": 1.0}, "val_share"),
        ({"split_seed": -1}, "split_seed"),
        ({"unreadable": "ignore"}, "unreadable"),
    ],
)
def test_wrong_arguments_are_refused(root, kind, options, message):
    with pytest.raises(InputError, match=message):
        kind(str(root), source_domains=["art"], **options)
