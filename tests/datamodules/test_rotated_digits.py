from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample

from datamodules import Digits, DigitsStream, RotatedDigits, RotatedDigitsStream
from datamodules.rotated_digits import angle_name
from tta.cli import main
from tta.errors import InputError

ROOT = Path(__file__).parents[2]


def built(kind, **options):
    module = kind(**options)
    module.setup()
    return module


@pytest.fixture(scope="module")
def source():
    return built(RotatedDigits, angles=[0, 22.5, 90], image_size=16)


def rotated(images, angle):
    """Counter-clockwise, by bilinear interpolation, black outside."""
    turn = torch.tensor(np.deg2rad(angle), dtype=torch.float32)
    matrix = torch.stack([turn.cos(), -turn.sin(), turn * 0, turn.sin(), turn.cos(), turn * 0]).view(1, 2, 3)
    grid = affine_grid(matrix.expand(len(images), -1, -1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)


def test_every_image_is_turned_by_every_angle(source):
    plain = built(Digits, image_size=16, augment=False)
    for turned, upright in ((source.train, plain.train), (source.heldout, plain.heldout), (source.test, plain.test)):
        count = len(upright)
        assert len(turned) == 3 * count
        assert turned.domain.tolist() == np.arange(3).repeat(count).tolist()
        assert turned.labels.tolist() == upright.labels.tolist() * 3
        images = torch.stack([turned[number][0] for number in range(3 * count)])
        assert torch.equal(images[:count], upright.images)
        assert torch.allclose(images[count : 2 * count], rotated(upright.images, 22.5), atol=1e-5)
        assert torch.equal(images[2 * count :], upright.images.rot90(1, (2, 3)))
        assert images.min() >= 0
        assert images.max() <= 1


def test_domains_are_the_angles_as_text(source):
    assert source.domains == ["0", "22.5", "90"]
    assert source.domain_sizes() == {"0": 898, "22.5": 898, "90": 898}
    assert RotatedDigits().domains == ["0", "15", "30", "45", "60", "75"]
    assert RotatedDigitsStream().domains == ["-45", "-30", "-15", "90", "105", "120"]
    assert [angle_name(angle) for angle in (-0.0, 0, 180, -1e-3, 123.4567891)] == [
        "0", "0", "180", "-0.001", "123.4567891",
    ]  # fmt: skip


def test_batches_tell_the_angle(source):
    for kind, domains in (("one_domain", 1), ("every_domain", 3)):
        module = built(RotatedDigits, angles=[0, 22.5, 90], image_size=16, batches=kind)
        loaded = list(module.train_dataloader())
        assert {len(batch["domain"].unique()) for batch in loaded} == {domains}
        batch = loaded[0]
        assert torch.equal(batch["image"], torch.stack([source.train[index][0] for index in batch["index"].tolist()]))
    held = [batch["domain"] for batch in source.val_dataloader()]
    assert torch.cat(held).bincount().tolist() == [270, 270, 270]


def test_augmentation_is_optional():
    plain, moved = (built(RotatedDigits, angles=[0], image_size=16, augment=augment) for augment in (False, True))
    one, other = (next(iter(module.train_dataloader())) for module in (plain, moved))
    assert torch.equal(one["index"], other["index"])
    assert not torch.equal(one["image"], other["image"])


def test_the_stream_shows_unseen_images_at_unseen_angles():
    stream = built(RotatedDigitsStream, image_size=16, angles=[90, -45], source_angles=[0, 22.5, 90])
    upright = built(DigitsStream, image_size=16).stream.images
    batches = list(stream.train_dataloader())
    images, domain = (torch.cat([batch[key] for batch in batches]) for key in ("image", "domain"))
    index = torch.cat([batch["index"] for batch in batches])
    assert domain.bincount().tolist() == [629, 629]
    assert torch.equal(images[domain == 0], upright.rot90(1, (2, 3))[index[domain == 0]])
    assert torch.allclose(images[domain == 1], rotated(upright, -45)[index[domain == 1]], atol=1e-5)
    assert stream.images_of("90") is stream.images_of("90")
    assert stream.severities() == [{}, {}]


def test_the_stream_gives_the_images_of_source_training(source):
    stream = built(RotatedDigitsStream, image_size=16, source_angles=[0, 22.5, 90], source_samples=3000)
    shown = torch.cat([batch["image"] for batch in stream.source_dataloader()])
    assert torch.equal(shown, torch.stack([source.train[number][0] for number in range(len(source.train))]))
    held = torch.cat([batch["image"] for batch in stream.val_dataloader()])
    assert torch.equal(held, torch.stack([source.heldout[number][0] for number in range(len(source.heldout))]))


def test_domains_chooses_some_of_the_angles():
    stream = built(RotatedDigitsStream, domains=["120", "-45"], image_size=16, samples_per_domain=5, batch_size=5)
    assert stream.domains == ["120", "-45"]
    assert stream.domain_sizes() == {"120": 5, "-45": 5}
    with pytest.raises(InputError, match="domains: '46' is unknown; choose one of"):
        RotatedDigitsStream(domains=["46"])


@pytest.mark.parametrize("kind", [RotatedDigits, RotatedDigitsStream])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"angles": [0, 181]}, r"angles: 181 is outside \[-180, 180\]"),
        ({"angles": [float("nan")]}, r"angles: nan is outside \[-180, 180\]"),
        ({"angles": [15, 15.0]}, "angles: '15' is given twice; write each angle once"),
        ({"angles": [0, -0.0]}, "angles: '0' is given twice"),
        ({"angles": [180, -180]}, "angles: -180 and 180 are the same turn"),
        ({"angles": []}, "angles: the list is empty"),
        ({"image_size": 4}, "image_size: 4"),
        ({"split_seed": -1}, "split_seed"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(kind, options, message):
    with pytest.raises(InputError, match=message) as caught:
        kind(**options)
    assert "\n" not in str(caught.value)


def test_wrong_arguments_of_one_of_them():
    with pytest.raises(InputError, match="source_angles: 200 is outside"):
        RotatedDigitsStream(source_angles=[200])
    with pytest.raises(InputError, match="batches: 'angle' is unknown"):
        RotatedDigits(batches="angle")
    with pytest.raises(InputError, match="batch_size: 5 is too small, the smallest allowed value is 6"):
        RotatedDigits(batches="every_domain", batch_size=5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data.angles", "[0, 200]"), "angles: 200.0 is outside [-180, 180]"),
        (("--data.angles", "[upright]"), "angles: expected a value of type float, got 'upright'"),
        (("--data.batches", "angle"), "batches: Expected"),
    ],
)
def test_the_command_line_refuses_in_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.syspath_prepend(str(ROOT))
    part = ("--config", str(ROOT / "configs" / "data" / "digits_rotated_source.yaml"))
    network = ("--model.backbone", "models.TimmClassifier", "--model.backbone.name", "test_resnet")
    classes = ("--model.backbone.num_classes", "10", "--trainer.default_root_dir", str(tmp_path))
    assert main(["fit", *part, *network, *classes, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tta: error: ")
    assert message in line
