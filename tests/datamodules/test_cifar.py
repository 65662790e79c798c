import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from datamodules.cifar import CLASSES, CIFARSource, CIFARStream
from datamodules.cifar_corrupted import CIFARCorrupted
from datamodules.stored_corruptions import STANDARD
from tta.errors import InputError


@pytest.fixture
def clean(tmp_path, write_cifar, monkeypatch):
    """CIFAR-10 and CIFAR-100 with very few images."""
    write_cifar(tmp_path, CIFAR10, CLASSES["cifar10"], "labels", monkeypatch)
    write_cifar(tmp_path, CIFAR100, CLASSES["cifar100"], "fine_labels", monkeypatch)
    return str(tmp_path)


@pytest.fixture
def corrupted(tmp_path, write_cifar_corrupted):
    """CIFAR-10-C with two images per severity; a pixel tells its row."""
    write_cifar_corrupted(tmp_path / "CIFAR-10-C", (*STANDARD, "spatter"))
    return tmp_path / "CIFAR-10-C"


def built(module):
    module.prepare_data()
    module.setup()
    return module


@pytest.mark.parametrize(("name", "count"), [("cifar10", 10), ("cifar100", 100)])
def test_source_and_stream_share_the_split(clean, name, count):
    source = built(CIFARSource(clean, name, val_share=0.34))
    stream = built(CIFARStream(clean, name, val_share=0.34, batch_size=6))
    assert source.num_classes == stream.num_classes == count
    assert source.class_counts == [2] * count
    assert source.heldout.indices.tolist() == stream.heldout.indices.tolist()
    assert source.train.indices.tolist() == stream.source.indices.tolist()
    batches = list(stream.train_dataloader())
    assert stream.domains == ["clean"]
    assert sorted(torch.cat([batch["label"] for batch in batches]).tolist()) == list(range(count))
    assert batches[0]["image"].shape == (6, 3, 32, 32)
    assert torch.equal(source.test[1][0], stream.stream[1][0])
    assert next(iter(source.train_dataloader()))["image"].shape[1:] == (3, 32, 32)


def test_pixels_are_those_of_the_file(clean):
    stream = built(CIFARStream(clean))
    stored = CIFAR10(clean, train=False).data[4]
    image, label = stream.stream[4]
    assert label == 4
    assert image.dtype == torch.float32
    assert torch.equal(image, torch.from_numpy(stored.transpose(2, 0, 1).astype(np.float32)) / 255)


def test_test_images_can_be_corrupted_on_the_fly(clean):
    stream = built(CIFARStream(clean, domains=["gaussian_noise:1", "gaussian_noise:3.5"], batch_size=5))
    assert {tuple(batch["domain"].unique().tolist()) for batch in stream.train_dataloader()} == {(0,), (1,)}


@pytest.mark.parametrize("kind", [CIFARSource, CIFARStream])
def test_missing_files_say_where_and_how(kind, tmp_path):
    with pytest.raises(InputError, match=rf"root: no cifar10 .*{tmp_path}/cifar-10-batches-py.*download=true.*https:"):
        kind(str(tmp_path))
    with pytest.raises(InputError, match="name: 'cifar' is unknown"):
        kind(str(tmp_path), "cifar")


@pytest.mark.parametrize("kind", [CIFARSource, CIFARStream])
def test_files_that_are_not_the_published_ones_are_refused(kind, clean, tmp_path):
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"half a download")
    with pytest.raises(InputError, match=r"cannot be read .*delete this folder if it is there, then set download=true"):
        built(kind(clean))


@pytest.mark.parametrize("kind", [CIFARSource, CIFARStream])
def test_a_failed_download_is_one_line(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar.tar.gz")
    with pytest.raises(InputError, match=r"cifar10 in .* cannot be read"):
        built(kind(str(tmp_path), download=True))


@pytest.mark.parametrize("kind", [CIFARSource, CIFARStream])
def test_a_wrong_split_is_refused(kind, clean):
    with pytest.raises(InputError, match="val_share"):
        kind(clean, val_share=0.0)


def test_a_severity_is_a_fifth_of_the_file(corrupted):
    domains = ["shot_noise:2", "gaussian_noise", "spatter:1"]
    module = built(CIFARCorrupted(str(corrupted), domains=domains, severity=5, batch_size=2))
    batches = list(module.train_dataloader())
    assert module.domains == ["shot_noise:2", "gaussian_noise:5", "spatter:1"]
    assert [sorted((255 * batch["image"][:, 0, 0, 0]).round().tolist()) for batch in batches] == [
        [12, 13],
        [8, 9],
        [150, 151],
    ]
    assert all(sorted(batch["label"].tolist()) == [3, 8] for batch in batches)
    assert module.images_of("shot_noise:2") is module.images_of("shot_noise:2")
    assert module.severities() == [{"shot_noise": 2}, {"gaussian_noise": 5}, {"spatter": 1}]


def test_the_default_is_the_benchmark_in_the_order_of_its_tables(corrupted):
    module = built(CIFARCorrupted(str(corrupted), severity=3, batch_size=2))
    assert module.domains == [f"{name}:3" for name in STANDARD]
    assert len(list(module.train_dataloader())) == 15
    (corrupted / "fog.npy").unlink()
    with pytest.raises(InputError, match="domains: 'fog' is unknown; choose one of brightness, "):
        CIFARCorrupted(str(corrupted))


def test_workers_read_the_same_images(corrupted):
    options = {"domains": ["fog"], "batch_size": 1}
    one, two = (
        list(built(CIFARCorrupted(str(corrupted), num_workers=number, **options)).train_dataloader())
        for number in (0, 1)
    )
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(one, two, strict=True))


def test_clean_images_are_a_domain_if_they_are_given(corrupted, clean):
    module = built(CIFARCorrupted(str(corrupted), source_root=clean, domains=["clean", "fog"]))
    assert module.domains == ["clean", "fog:5"]
    assert torch.equal(module.images_of("clean")[3][0], built(CIFARStream(clean)).stream[3][0])
    assert sum(len(batch["label"]) for batch in module.source_dataloader()) == 30
    assert sum(len(batch["label"]) for batch in module.val_dataloader()) == 10
    with pytest.raises(InputError, match="'clean' is unknown"):
        CIFARCorrupted(str(corrupted), domains=["clean"])
    with pytest.raises(InputError, match="source_root: no cifar10"):
        CIFARCorrupted(str(corrupted), source_root=str(corrupted))


@pytest.mark.parametrize("domain", ["fog:2.5", "fog:0", "fog:6", "fog:x", "fog:"])
def test_severities_that_are_not_stored_are_refused(corrupted, domain):
    with pytest.raises(InputError, match=r"domains: 'fog:.*only 1, 2, 3, 4 and 5 are stored"):
        CIFARCorrupted(str(corrupted), domains=[domain], severity=2.5)


def test_missing_corruptions_say_where_and_how(corrupted, tmp_path):
    with pytest.raises(InputError, match=rf"root: .*looked at {tmp_path}/no.*https://zenodo"):
        CIFARCorrupted(str(tmp_path / "no"))
    (corrupted / "labels.npy").unlink()
    with pytest.raises(InputError, match=r"no labels\.npy"):
        CIFARCorrupted(str(corrupted))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("labels", np.zeros(10), "labels.*float64"),
        ("labels", np.zeros(9, dtype=np.int64), "5 times classes of cifar10"),
        ("labels", np.full(10, 10), "classes of cifar10, 0 to 9; check name"),
        ("fog", np.zeros((10, 32, 32, 3)), r"fog\.npy' holds float64"),
        ("fog", np.zeros((5, 32, 32, 3), dtype=np.uint8), r"not uint8 of shape \(10, 32, 32, 3\)"),
        ("fog", np.zeros((10, 3, 32, 32), dtype=np.uint8), r"of shape \(10, 3, 32, 32\)"),
    ],
)
def test_files_of_other_content_are_refused(corrupted, file, content, message):
    np.save(corrupted / f"{file}.npy", content)
    with pytest.raises(InputError, match=message):
        built(CIFARCorrupted(str(corrupted), domains=["fog"])).images_of("fog:5")
