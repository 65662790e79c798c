import hashlib
import pickle

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Recorder(LightningModule):
    """A linear classifier of 3x8x8 images that notes which images every training batch has."""

    def __init__(self, num_classes):
        super().__init__()
        self.layer = torch.nn.Linear(192, num_classes)
        self.seen = []

    def training_step(self, batch, _):
        self.seen.append(batch["index"].tolist())
        return torch.nn.functional.cross_entropy(self.layer(batch["image"].flatten(1)), batch["label"])

    def validation_step(self, batch, _):
        pass

    def predict_step(self, batch, _):
        return batch

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveAt(Callback):
    """Saves after as many batches, or after the first epoch if ``None``."""

    def __init__(self, path, batch):
        self.path = path
        self.batch = batch

    def on_train_batch_end(self, trainer, module, *_):
        if len(module.seen) == self.batch:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer, _):
        if self.batch is None and trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def _trainer(epochs=1, callbacks=(), **options):
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )


@pytest.fixture(scope="session")
def fit():
    """Training on 3x8x8 images; gives the indices of every batch. ``save=(path, batch)`` leaves a checkpoint."""

    def run(data, epochs=1, save=None, ckpt_path=None, **options):
        module = Recorder(data.num_classes)
        resume = {} if ckpt_path is None else {"ckpt_path": ckpt_path, "weights_only": True}
        _trainer(epochs, [] if save is None else [SaveAt(*save)], **options).fit(module, data, **resume)
        return module.seen

    return run


@pytest.fixture(scope="session")
def predict():
    """Prediction that gives the batches back."""
    return lambda data: _trainer().predict(Recorder(data.num_classes), data)


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """An image tree with train and test folders: classes cat and dog, 12 + 4 JPEG files of 16x16 pixels each."""
    root = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return root


@pytest.fixture(scope="session")
def write_images():
    """Writer of a new folder of grey images: all of one shade and size, named by number."""

    def write(folder, count=2, grey=0, size=(32, 32), name="{}.png"):
        folder.mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", size, (grey,) * 3).save(folder / name.format(number))

    return write


@pytest.fixture(scope="session")
def write_cifar():
    """Writer of the layout of CIFAR's Python version, by default 3 training images and 1 test image per class."""

    def write(root, kind, classes, key, monkeypatch, train=3):
        folder = root / kind.base_folder
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for attribute, count in (("train_list", train), ("test_list", 1)):
            name = getattr(kind, attribute)[0][0]
            labels = list(range(len(classes))) * count
            pixels = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
            digest = _pickle(folder / name, {"data": pixels, key: labels})
            monkeypatch.setattr(kind, attribute, [[name, digest]])
        digest = _pickle(folder / kind.meta["filename"], {kind.meta["key"]: classes})
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": digest})

    return write


def _pickle(path, content):
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def write_cifar_corrupted():
    """Writer of the layout of CIFAR-C, two images per severity, of classes 3 and 8; a pixel tells its row."""

    def write(folder, names):
        folder.mkdir(parents=True)
        for number, name in enumerate(names):
            rows = np.arange(10, dtype=np.uint8)[:, None, None, None] + np.uint8(10 * number)
            np.save(folder / f"{name}.npy", np.broadcast_to(rows, (10, 32, 32, 3)))
        np.save(folder / "labels.npy", np.array([3, 8] * 5, dtype=np.uint8))

    return write


@pytest.fixture(scope="session")
def hub_split():
    """Maker of a Hugging Face data set with columns of images, of classes in turn, and of notes."""
    datasets = pytest.importorskip("datasets")

    def make(count, classes=("cat", "dog"), image_column="image", size=(10, 12)):
        rng = np.random.default_rng(count)
        pixels = rng.integers(0, 256, (count, size[1], size[0], 3), dtype=np.uint8)
        columns = {
            image_column: [Image.fromarray(image) for image in pixels],
            "label": [number % len(classes) for number in range(count)],
            "note": ["text"] * count,
        }
        label = datasets.ClassLabel(names=list(classes))
        kinds = {image_column: datasets.Image(), "label": label, "note": datasets.Value("string")}
        return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))

    return make
