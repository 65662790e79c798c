from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import CorruptedDomains, Digits, DigitsStream, Domain, RotatedDigits, SourceDataModule, corrupt
from datamodules.augmentations import crop_and_flip
from datamodules.corruptions import image_seed
from datamodules.datasets import TensorImages, collate
from tta.cli import main
from tta.errors import InputError

ROOT = Path(__file__).parents[2]
DOMAINS = ["clean", "gaussian_noise:3", "contrast:2+gaussian_noise:1"]
CORRUPTIONS = [Domain.parse(text, 5) for text in DOMAINS]


def random_images(count, seed):
    pixels = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return TensorImages(pixels, np.arange(count) % 3)


class Source(SourceDataModule):
    """Random images of three classes; counts how often it was asked for its files."""

    class_names = ("a", "b", "c")
    prepared = 0

    def __init__(self, augment=False, **options):
        super().__init__(**options)
        self.augment = crop_and_flip if augment else None

    def prepare_data(self):
        self.prepared += 1

    def setup(self, stage=None):
        self.train, self.heldout, self.test = random_images(20, 0), random_images(6, 1), random_images(4, 2)


def built(source=None, domains=DOMAINS, **options):
    module = CorruptedDomains(Source() if source is None else source, domains, **({"batch_size": 9} | options))
    module.setup()
    return module


def by_index(loader):
    whole = collate(
        [dict(zip(batch, row, strict=True)) for batch in loader for row in zip(*batch.values(), strict=True)]
    )
    order = whole["index"].argsort()
    return {key: value[order] for key, value in whole.items()}


def test_every_image_is_shown_under_every_domain():
    module = built()
    assert module.domains == DOMAINS
    assert module.domain_sizes() == dict.fromkeys(DOMAINS, 20)
    assert module.class_counts == [21, 21, 18]
    assert module.num_classes == 3
    loaders = (module.train_dataloader(), module.val_dataloader(), module.test_dataloader())
    for part, (loader, clean) in enumerate(
        zip(loaders, (module.source.train, module.source.heldout, module.source.test), strict=True)
    ):
        shown = by_index(loader)
        count = len(clean)
        assert set(shown) == {"image", "label", "index", "domain"}
        assert shown["index"].tolist() == list(range(3 * count))
        assert shown["domain"].tolist() == np.arange(3).repeat(count).tolist()
        assert shown["label"].tolist() == clean.labels.tolist() * 3
        seed = image_seed(0, "source domains", part)
        for number, domain in enumerate(CORRUPTIONS):
            expected = corrupt(clean.images, domain, seed, range(count))
            assert torch.equal(shown["image"][shown["domain"] == number], expected)
        assert torch.equal(shown["image"][:count], clean.images), "clean"


def test_an_image_looks_the_same_alone_in_every_epoch_and_beside_other_domains():
    module = built()
    loader = module.train_dataloader()
    first, second = by_index(loader), by_index(loader)
    assert torch.equal(first["image"], second["image"])
    assert torch.equal(first["image"][25], module.train[25][0])
    alone = by_index(built(domains=["gaussian_noise:3"]).train_dataloader())
    assert torch.equal(alone["image"], first["image"][20:40])


def test_noise_differs_between_the_seeds_the_parts_and_the_stream():
    class Grey(Source):
        def setup(self, stage=None):
            self.train = self.heldout = self.test = TensorImages(torch.full((4, 3, 16, 16), 0.5), np.arange(4) % 3)

    noises = []
    for seed in (0, 1):
        module = built(Grey(), domains=["gaussian_noise"], seed=seed)
        noises += [module.train[0][0], module.train[1][0], module.heldout[0][0], module.test[0][0]]
        noises += [corrupt(module.source.train.images, Domain.parse("gaussian_noise:5", 5), seed, range(4))[0]]
    assert len({noise.numpy().tobytes() for noise in noises}) == len(noises)


def test_augmentation_comes_before_the_corruption_and_only_in_training():
    black = {"domains": ["clean", "brightness:5"], "batch_size": 40}
    module = built(Source(augment=True), **black)
    loader = module.train_dataloader()
    first, second = next(iter(loader)), next(iter(loader))
    plain = next(iter(built(**black).train_dataloader()))
    assert torch.equal(first["index"], plain["index"])
    assert not torch.equal(first["image"], plain["image"])
    assert not torch.equal(by_index([first])["image"], by_index([second])["image"]), "anew in each epoch"
    assert torch.equal(
        by_index(module.val_dataloader())["image"], by_index(built(**black).val_dataloader())["image"]
    ), "held-out images are not augmented"


def test_what_the_source_augments_is_what_is_corrupted():
    class Whitened(Source):
        def __init__(self, **options):
            super().__init__(**options)
            self.augment = lambda image, generator: torch.ones_like(image)

    shown = by_index(built(Whitened(), domains=["clean", "gaussian_noise:5"]).train_dataloader())
    assert (shown["image"][:20] == 1).all()
    noisy = shown["image"][20:]
    assert 0 < (noisy < 1).float().mean() < 1, "the noise came after the augmentation"


@pytest.mark.parametrize("batches", ["mixed", "one_domain", "every_domain"])
def test_workers_change_nothing(batches):
    def batches_of(workers):
        return list(built(Source(augment=True), batches=batches, num_workers=workers).train_dataloader())

    alone, helped = batches_of(0), batches_of(2)
    assert len(alone) == len(helped) > 0
    for one, other in zip(alone, helped, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_every_domain_has_the_long_tail_of_the_source():
    module = built(Source(imbalance="exponential", imbalance_ratio=3))
    assert module.class_counts == [18, 9, 6]
    assert set(module.domain_sizes().values()) == {11}
    tail = built(imbalance="exponential", imbalance_ratio=9)
    assert tail.class_counts == [18, 6, 2]
    shown = by_index(tail.train_dataloader())
    images = torch.stack([tail.training_images[number][0] for number in range(26)])
    assert torch.equal(shown["image"], images)
    assert shown["domain"].tolist() == tail.training_images.domain.tolist()


def test_the_source_fetches_its_files_and_is_read_once():
    module = CorruptedDomains(Source(), DOMAINS)
    module.prepare_data()
    assert module.source.prepared == 1
    assert module.class_counts == [21, 21, 18]
    first = module.train
    module.setup("fit")
    assert module.train is first


def test_digits_in_styles_resume_exactly(tmp_path, fit):
    def data():
        digits = Digits(image_size=8)
        return CorruptedDomains(digits, ["clean", "invert:1"], levels="digits", batches="one_domain", batch_size=200)

    path = tmp_path / "styles.ckpt"
    whole = fit(data(), epochs=2, save=(path, 5), limit_val_batches=0)
    assert fit(data(), epochs=2, ckpt_path=path, limit_val_batches=0) == whole[5:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domains": ["fogg:1"]}, r"domains: 'fogg' is unknown; choose one of .* Did you mean 'fog'\?"),
        ({"domains": ["fog:6"]}, "severity: 6.0 is outside"),
        ({"domains": ["fog", "fog:5"]}, "domains: 'fog:5' is given twice; write each domain once"),
        ({"domains": ["clean", "clean:3"]}, "domains: 'clean' is given twice"),
        ({"domains": []}, "domains: the list is empty"),
        ({"domains": ["fog"], "levels": "digits"}, "domains .with levels 'digits'.: 'fog' is unknown"),
        ({"levels": "33"}, "levels: '33' is unknown"),
        ({"severity": 7}, "severity: 7"),
        ({"batches": "all"}, "batches: 'all' is unknown"),
        ({"batches": "every_domain", "batch_size": 2}, "batch_size: 2 is too small, the smallest allowed value is 3"),
        ({"source": RotatedDigits()}, "source: RotatedDigits is no source of clean images without domains"),
        ({"source": DigitsStream()}, "source: DigitsStream is no source of clean images"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        built(**options)
    assert "\n" not in str(caught.value)


def train(folder, *words):
    part = ("--config", str(ROOT / "configs" / "data" / "digits_styles_source.yaml"))
    network = ("--model.backbone", "models.TimmClassifier", "--model.backbone.name", "test_resnet")
    quiet = ("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false")
    limits = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1")
    return main(["fit", *part, *network, *quiet, *limits, "--trainer.default_root_dir", str(folder), *words])


def test_the_command_line_changes_domains_and_the_source_within(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    words = ("--data.domains", "[clean, occlusion:2]", "--data.source.init_args.image_size", "16")
    assert train(tmp_path, *words, "--data.batches", "one_domain", "--model.backbone.num_classes", "10") == 0
    assert (tmp_path / "weights.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data.domains", "[clean, contrst]"), "domains: 'contrst' is unknown"),
        (("--data.batches", "some"), "data: batches: Expected"),
        (("--data.source", "datamodules.Digit"), "data: source: unknown class 'datamodules.Digit'"),
        (("--data.source", "datamodules.DigitsStream"), "does not correspond to a subclass of Source"),
        (("--data.batch_size", "3"), "batch_size: 3 is too small, the smallest allowed value is 4"),
        (("--data.source.init_args.image_size", "4"), "image_size: 4 is too small"),
    ],
)
def test_the_command_line_refuses_in_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.syspath_prepend(str(ROOT))
    assert train(tmp_path, *words, "--model.backbone.num_classes", "10") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tta: error: ")
    assert message in line
