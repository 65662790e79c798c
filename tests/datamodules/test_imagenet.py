from functools import partial

import pytest
import torch

from datamodules.imagenet import ImageNetC, ImageNetVariant, imagenet_classes
from datamodules.stored_corruptions import STANDARD
from models import ClassSubset
from tta.errors import InputError

WNIDS = ("n01440764", "n01443537", "n15075141")
"""Classes 0, 1 and 999."""


@pytest.fixture
def write(write_images):
    """Writer of a class folder with two images."""
    return partial(write_images, name="ILSVRC2012_val_{:08d}.JPEG")


@pytest.fixture
def grouped(tmp_path, write):
    """ImageNet-C as its archives unpack: ROOT/GROUP/CORRUPTION/SEVERITY/WNID; grey tells the severity."""
    for group, name in (("noise", "gaussian_noise"), ("noise", "shot_noise"), ("weather", "fog"), ("extra", "spatter")):
        for severity in (1, 5):
            for wnid in WNIDS:
                write(tmp_path / "c" / group / name / str(severity) / wnid, grey=10 * severity)
    return tmp_path / "c"


@pytest.fixture
def photographs(tmp_path, write):
    for wnid in WNIDS:
        write(tmp_path / "clean" / wnid, grey=200, size=(50, 40))
    return tmp_path / "clean"


def built(module):
    module.setup()
    return module


def corrupted(root, **options):
    return built(ImageNetC(str(root), **{"image_size": 32, "resize": 36, **options}))


def test_grouped_folders_are_found(grouped):
    module = corrupted(grouped, domains=["fog:1", "gaussian_noise", "spatter"], batch_size=6)
    batches = list(module.train_dataloader())
    assert module.domains == ["fog:1", "gaussian_noise:5", "spatter:5"]
    assert module.num_classes == 1000
    assert [round(255 * batch["image"].mean().item()) for batch in batches] == [10, 50, 50]
    assert all(sorted(batch["label"].tolist()) == [0, 0, 1, 1, 999, 999] for batch in batches)
    assert batches[0]["image"].shape == (6, 3, 32, 32)
    assert module.images_of("fog:1") is module.images_of("fog:1")


def test_plain_folders_are_found(grouped):
    module = corrupted(grouped / "noise", domains=["shot_noise:1"])
    assert module.stored_names() == ["gaussian_noise", "shot_noise"]
    assert len(module.images_of("shot_noise:1")) == 6


def test_the_default_is_the_benchmark(grouped, write):
    with pytest.raises(
        InputError, match="domains: 'impulse_noise' is unknown; choose one of fog, gaussian_noise, shot"
    ):
        corrupted(grouped)
    for name in STANDARD:
        if not list(grouped.glob(f"*/{name}")):
            write(grouped / "digital" / name / "5" / WNIDS[0])
    assert corrupted(grouped).domains == [f"{name}:5" for name in STANDARD]


def test_clean_and_source_images(grouped, photographs):
    roots = {"source_root": str(photographs), "clean_root": str(photographs)}
    module = corrupted(grouped, domains=["clean", "fog"], **roots)
    assert module.domains == ["clean", "fog:5"]
    assert module.images_of("clean")[0][0].shape == (3, 32, 32)
    assert sum(len(batch["label"]) for batch in module.val_dataloader()) == 6
    assert sum(len(batch["label"]) for batch in module.source_dataloader()) == 6
    with pytest.raises(InputError, match="'clean' is unknown"):
        corrupted(grouped, domains=["clean"], source_root=str(photographs))
    with pytest.raises(InputError, match=r"clean_root: .*looked at"):
        corrupted(grouped, domains=["fog"], clean_root=str(photographs / "no"))


@pytest.mark.parametrize("domain", ["fog:2.5", "fog:0"])
def test_severities_that_are_not_stored_are_refused(grouped, domain):
    with pytest.raises(InputError, match="only 1, 2, 3, 4 and 5"):
        corrupted(grouped, domains=[domain])


def test_a_severity_that_was_not_unpacked_is_named(grouped):
    with pytest.raises(InputError, match="fog/3' is no folder"):
        corrupted(grouped, domains=["fog:3"]).images_of("fog:3")


def test_missing_corruptions_say_where_and_how(photographs, tmp_path):
    with pytest.raises(InputError, match=rf"root: .*{tmp_path}/no.*ROOT/CORRUPTION/SEVERITY/WNID/IMAGE"):
        corrupted(tmp_path / "no")
    with pytest.raises(InputError, match=r"root: no corruption in .*looked at .*https://zenodo"):
        corrupted(photographs)


def test_a_folder_that_is_no_class_is_refused(grouped, write):
    write(grouped / "weather" / "fog" / "5" / "n00000000")
    with pytest.raises(InputError, match=r"1 of 4 folders .*'n00000000', are none of the 1000 classes"):
        corrupted(grouped, domains=["fog"]).images_of("fog:5")


def test_unreadable_images_can_be_skipped(grouped):
    (grouped / "weather" / "fog" / "5" / WNIDS[1] / "ILSVRC2012_val_00000000.JPEG").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read"):
        list(corrupted(grouped, domains=["fog"], batch_size=6).train_dataloader())
    with pytest.warns(UserWarning, match="1 of 6"):
        assert len(corrupted(grouped, domains=["fog"], unreadable="skip").images_of("fog:5")) == 5


@pytest.mark.parametrize("name", ["a", "r"])
def test_classes_of_a_subset_are_those_of_the_model(name, tmp_path, write):
    module_classes = imagenet_classes(f"imagenet_{name}")
    for wnid in module_classes[3:102:98]:
        write(tmp_path / wnid, size=(40, 30))
    module = built(ImageNetVariant(str(tmp_path), name, image_size=16, resize=18, batch_size=4))
    batch = next(iter(module.train_dataloader()))
    assert module.num_classes == 200
    assert module.domains == [f"imagenet_{name}"]
    assert sorted(batch["label"].tolist()) == [3, 3, 101, 101]
    assert batch["image"].shape == (4, 3, 16, 16)
    assert module.severities() == [{}]
    kept = ClassSubset(torch.nn.Identity(), f"imagenet_{name}")(torch.arange(1000.0)[None])
    names = imagenet_classes()
    assert [names[int(index)] for index in kept[0]] == module.class_names


def test_numbers_of_v2_are_class_numbers(tmp_path, write):
    for number in (0, 2, 10, 999):
        write(tmp_path / str(number), grey=number // 4)
    module = built(ImageNetVariant(str(tmp_path), "v2", image_size=32, resize=32, batch_size=8))
    batch = next(iter(module.train_dataloader()))
    assert module.num_classes == 1000
    assert sorted(batch["label"].tolist()) == [0, 0, 2, 2, 10, 10, 999, 999]
    assert torch.equal((255 * batch["image"][:, 0, 0, 0]).round().long(), batch["label"] // 4)


def test_sketch_has_all_classes(photographs):
    module = built(ImageNetVariant(str(photographs), "sketch", image_size=8, resize=10))
    assert module.images_of("imagenet_sketch").labels.tolist() == [0, 0, 1, 1, 999, 999]


def test_classes_outside_a_subset_are_refused(photographs):
    with pytest.raises(
        InputError, match=r"root: 3 of 3 folders .*'n01440764', are none of the 200 classes.*check root"
    ):
        ImageNetVariant(str(photographs), "a")


def test_a_missing_variant_says_where_and_how(tmp_path):
    with pytest.raises(InputError, match=rf"root: .*looked at {tmp_path}/no.*ROOT/CLASS/IMAGE from https://github"):
        ImageNetVariant(str(tmp_path / "no"), "r")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "c"}, "name: 'c' is unknown"),
        ({"domains": ["clean"]}, "domains: 'clean' is unknown; choose one of imagenet_sketch"),
        ({"image_size": 300}, "resize: 256 is too small"),
        ({"unreadable": "ignore"}, "unreadable"),
    ],
)
def test_wrong_arguments_are_refused(photographs, options, message):
    with pytest.raises(InputError, match=message):
        ImageNetVariant(str(photographs), **{"name": "sketch", **options})
