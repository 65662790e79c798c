"""Image trees with domains, ``root/DOMAIN/CLASS/IMAGE``: PACS, OfficeHome, VLCS, DomainNet, TerraIncognita."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from datamodules.augmentations import crop_and_flip
from datamodules.checks import check_name
from datamodules.datasets import ImageData
from datamodules.decoding import check_sizes
from datamodules.domain_source import Batches, DomainSource, DomainSubset
from datamodules.files import ImageFiles, Unreadable, check_unreadable, class_folders, class_tree
from datamodules.splits import check_split, hold_out
from datamodules.stream import StreamDataModule
from tta.errors import InputError

LAYOUT = (
    "ROOT/DOMAIN/CLASS/IMAGE, as domainbed/scripts/download.py of https://github.com/facebookresearch/DomainBed does"
)


def shared_classes(root: str, domains: Sequence[str]) -> list[str]:
    """List the classes of domains that must have the same ones.

    Args:
        root: Folder with one sub-folder per domain.
        domains: Names of the domains.

    Returns:
        Names of the class folders, ascending.

    Raises:
        InputError: If a domain has no classes, or one lacks a class of another.
    """
    found = {domain: class_folders(os.path.join(root, domain), "root") for domain in domains}
    classes = sorted({name for names in found.values() for name in names})
    lacking = {domain: sorted(set(classes) - set(names)) for domain, names in found.items()}
    odd = "; ".join(f"{domain!r} lacks {missing}" for domain, missing in lacking.items() if missing)
    if odd:
        raise InputError(f"root: the domains of {root!r} have different classes: {odd}; make the class folders agree.")
    return classes


def _check_sources(root: str, source_domains: Sequence[str]) -> list[str]:
    allowed = class_folders(root, "root", LAYOUT)
    if not source_domains:
        raise InputError(f"source_domains: the list is empty; choose from {', '.join(allowed)}.")
    for domain in source_domains:
        check_name(domain, allowed, "source_domains")
    return list(dict.fromkeys(source_domains))


def _tree(root: str, domains: Sequence[str], classes: Sequence[str]) -> list[tuple[str, int]]:
    return [pair for domain in domains for pair in class_tree(os.path.join(root, domain), classes)]


class DomainFolderSource(DomainSource):
    """Some domains together, for source training; ``heldout`` and ``test`` are a share of them."""

    def __init__(
        self,
        root: str,
        source_domains: list[str],
        image_size: int | None = 224,
        resize: int | None = None,
        augment: bool = True,
        val_share: float = 0.2,
        split_seed: int = 0,
        unreadable: Unreadable = "refuse",
        batches: Batches = "mixed",
        **options: Any,  # noqa: ANN401 - the bases name and type them
    ) -> None:
        """Check the arguments and name the classes; images are listed in ``setup``.

        Args:
            root: Folder with one sub-folder per domain, each with one per class.
            source_domains: Domains to train on, at least one; their order numbers them.
            image_size: Scale the shorter side to ``resize`` and cut out the central square of this side; keep the size
                if ``None``.
            resize: Length of the shorter side before cutting; ``image_size`` if ``None``.
            augment: Crop and flip the training images at random.
            val_share: Share of each class of each domain to hold out, between 0 and 1; the stream's must be the same.
            split_seed: Non-negative seed of the split; the stream's must be the same.
            unreadable: ``refuse`` stops at an image that cannot be read; ``skip`` decodes all images in ``setup`` and
                leaves these out, with a warning.
            batches: What a training batch is made of: ``mixed``, ``one_domain`` or ``every_domain``.
            **options: Arguments of ``SourceDataModule`` and ``Loading``.

        Raises:
            InputError: If an argument is out of range, a domain is unknown, or domains have different classes.
        """
        self.source_domains = _check_sources(root, source_domains)
        super().__init__(domains=self.source_domains, batches=batches, **options)
        check_sizes(image_size, resize)
        check_split(val_share, split_seed)
        self.class_names = shared_classes(root, self.source_domains)
        self.root = root
        self.image_size = image_size
        self.resize = resize
        self.augment = crop_and_flip if augment else None
        self.val_share = val_share
        self.split_seed = split_seed
        self.unreadable = check_unreadable(unreadable)

    def setup(self, stage: str | None = None) -> None:
        """List the images of the source domains, once.

        Args:
            stage: Ignored: all stages need the same.
        """
        if hasattr(self, "train"):
            return
        folders = _tree(self.root, self.source_domains, self.class_names)
        data = ImageFiles(folders, "root", self.image_size, self.resize, self.unreadable)
        domain = data.folder.astype(np.int64) // self.num_classes
        parts = hold_out(data, self.val_share, self.split_seed, data.folder)
        self.train, self.heldout = (DomainSubset(data, part.indices, domain[part.indices]) for part in parts)
        self.test = self.heldout


class DomainFolderStream(StreamDataModule):
    """A stream of whole domains; ``domains`` names the target domains, by default all but the source's."""

    def __init__(
        self,
        root: str,
        source_domains: list[str] | None = None,
        image_size: int | None = 224,
        resize: int | None = None,
        val_share: float = 0.2,
        split_seed: int = 0,
        unreadable: Unreadable = "refuse",
        **options: Any,  # noqa: ANN401 - the base names and types them
    ) -> None:
        """Check the arguments and name the classes; images are listed in ``setup`` and when a domain is first shown.

        Args:
            root: Folder with one sub-folder per domain, each with one per class.
            source_domains: Domains of source training, for ``source_dataloader`` and ``val_dataloader``; ``None`` gives
                neither.
            image_size: Scale the shorter side to ``resize`` and cut out the central square of this side; keep the size
                if ``None``.
            resize: Length of the shorter side before cutting; ``image_size`` if ``None``.
            val_share: Share of the source domains that is held out, between 0 and 1; as in source training.
            split_seed: Non-negative seed of that split; as in source training.
            unreadable: ``refuse`` stops at an image that cannot be read; ``skip`` decodes all images when a domain is
                first used and leaves these out, with a warning.
            **options: Arguments of ``StreamDataModule``.

        Raises:
            InputError: If an argument is out of range, a domain is unknown or one of the source, or domains have
                different classes.
        """
        self.root = root
        self.source_domains = [] if source_domains is None else _check_sources(root, source_domains)
        super().__init__(**options)
        check_sizes(image_size, resize)
        check_split(val_share, split_seed)
        self.class_names = shared_classes(root, [*self.source_domains, *self.conditions])
        self.image_size = image_size
        self.resize = resize
        self.val_share = val_share
        self.split_seed = split_seed
        self.unreadable = check_unreadable(unreadable)
        self._images: dict[str, ImageData] = {}

    def available_domains(self) -> list[str]:
        """Every domain that is none of the source, ascending."""
        return [name for name in class_folders(self.root, "root", LAYOUT) if name not in self.source_domains]

    def check_domain(self, text: str) -> str:
        """Return the name of a target domain.

        Args:
            text: The name of its folder.

        Raises:
            InputError: If there is no such folder, or it is a source domain.
        """
        if text in self.source_domains:
            raise InputError(
                f"domains: {text!r} is one of the source_domains; choose from {', '.join(self.available_domains())}."
            )
        return check_name(text, self.available_domains(), "domains")

    def setup(self, stage: str | None = None) -> None:
        """List the images of the source domains, once.

        Args:
            stage: Ignored: all stages need the same.
        """
        if self.source_domains and self.source is None:
            data = self._files(self.source_domains)
            self.source, self.heldout = hold_out(data, self.val_share, self.split_seed, data.folder)

    def images_of(self, condition: str) -> ImageData:
        """The images of a domain, listed once.

        Args:
            condition: Name of the domain.
        """
        if condition not in self._images:
            self._images[condition] = self._files([condition])
        return self._images[condition]

    def _files(self, domains: Sequence[str]) -> ImageFiles:
        folders = _tree(self.root, domains, self.class_names)
        return ImageFiles(folders, "root", self.image_size, self.resize, self.unreadable)
