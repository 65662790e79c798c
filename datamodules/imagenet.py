"""ImageNet's published test sets: ImageNet-C, -A, -R, -V2 and -Sketch."""

import os
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from timm.data.imagenet_info import ImageNetInfo

from datamodules.checks import check_name
from datamodules.datasets import ImageData
from datamodules.decoding import check_sizes
from datamodules.files import ImageFiles, Unreadable, check_unreadable, class_folders
from datamodules.stored_corruptions import SEVERITIES, StoredCorruptions
from datamodules.stream import StreamDataModule
from tta.errors import InputError

CORRUPTED_LAYOUT = (
    "ROOT/CORRUPTION/SEVERITY/WNID/IMAGE or ROOT/GROUP/CORRUPTION/SEVERITY/WNID/IMAGE from "
    "https://zenodo.org/records/2235448"
)

PLACES = {
    "a": "https://github.com/hendrycks/natural-adv-examples",
    "r": "https://github.com/hendrycks/imagenet-r",
    "v2": "https://huggingface.co/datasets/vaishaal/ImageNetV2",
    "sketch": "https://github.com/HaohanWang/ImageNet-Sketch",
}


def imagenet_classes(subset: str | None = None) -> list[str]:
    """List WordNet identifiers in the order of the logits of ImageNet models.

    Args:
        subset: ``imagenet_a`` or ``imagenet_r`` for the 200 classes of that set; all 1000 if ``None``.

    Returns:
        Such as ``n01440764``, ascending.
    """
    info: Any = ImageNetInfo("imagenet-1k")
    names: list[str] = info.label_names()
    if subset is None:
        return names
    listed = pkgutil.get_data("timm.data", f"_info/{subset}_indices.txt")
    return [names[int(line)] for line in (listed or b"").split()]


def number_folders(root: str, classes: Sequence[str], argument: str) -> list[tuple[str, int]]:
    """Number the class folders of a tree by a list of classes.

    Args:
        root: Folder with one sub-folder per class, named by identifier, or by number as in ImageNet-V2.
        classes: Every class that may occur, in the order of the numbers.
        argument: Name of the argument that gave ``root``, for the message.

    Returns:
        Path and number of each, as ``ImageFiles`` takes them.

    Raises:
        InputError: If there is no such tree, or a folder is none of the classes.
    """
    found = class_folders(root, argument)
    if all(name.isdecimal() for name in found):
        numbers = {str(number): number for number in range(len(classes))}
    else:
        numbers = {name: number for number, name in enumerate(classes)}
    odd = [name for name in found if name not in numbers]
    if odd:
        raise InputError(
            f"{argument}: {len(odd)} of {len(found)} folders in {root!r}, such as {odd[0]!r}, are none of the "
            f"{len(classes)} classes of this data set ({classes[0]}, ..., {classes[-1]}); check root and name."
        )
    return sorted(((os.path.join(root, name), numbers[name]) for name in found), key=lambda pair: pair[1])


class ImageNetC(StoredCorruptions):
    """A stream of ImageNet-C: 50,000 images of 224x224 pixels per corruption and severity.

    Source: Hendrycks and Dietterich, https://arxiv.org/abs/1903.12261; files: https://zenodo.org/records/2235448.
    """

    def __init__(
        self,
        root: str,
        source_root: str | None = None,
        clean_root: str | None = None,
        image_size: int = 224,
        resize: int = 256,
        unreadable: Unreadable = "refuse",
        **options: Any,  # noqa: ANN401 - the base names and types them
    ) -> None:
        """Check the arguments; images are listed in ``setup`` and when a domain is first shown.

        Args:
            root: Folder with the unpacked files: one folder per corruption, or per group of corruptions.
            source_root: ImageNet's training images as ``ROOT/WNID/IMAGE``, for methods that need source images.
            clean_root: ImageNet's validation images in the same form: they measure forgetting and are the domain
                ``clean``; note that they are the images of the stream before corruption.
            image_size: Side of the central square that is cut out of images; stored images of this size stay as
                they are.
            resize: Length to which the shorter side of clean and source images is scaled before cutting.
            unreadable: ``refuse`` stops at an image that cannot be read; ``skip`` decodes all images when a domain is
                first used and leaves these out, with a warning.
            **options: Arguments of ``StreamDataModule``.

        Raises:
            InputError: If an argument is out of range, or folders are missing.
        """
        self.clean_root = clean_root
        self._folders = _corruption_folders(root)
        super().__init__(**options)
        check_sizes(image_size, resize)
        self.class_names = imagenet_classes()
        self._clean = {
            argument: number_folders(folder, self.class_names, argument)
            for argument, folder in (("source_root", source_root), ("clean_root", clean_root))
            if folder is not None
        }
        self.image_size = image_size
        self.resize = resize
        self.unreadable = check_unreadable(unreadable)

    def stored_names(self) -> list[str]:
        """Names of the corruption folders, with ``clean`` if there is a ``clean_root``."""
        return sorted(self._folders) + (["clean"] if self.clean_root is not None else [])

    def setup(self, stage: str | None = None) -> None:
        """List the source and clean images, once, if there are any.

        Args:
            stage: Ignored: all stages need the same.
        """
        if "source_root" in self._clean and self.source is None:
            self.source = self._photographs("source_root")
        if "clean_root" in self._clean and self.heldout is None:
            self.heldout = self._photographs("clean_root")

    def read(self, name: str, severity: int) -> ImageData:
        """List the images of a corruption and severity, or the clean ones.

        Args:
            name: Name of the corruption's folder, or ``clean``.
            severity: 1 to 5.

        Raises:
            InputError: If the folder of the severity is missing or a class folder is unknown.
        """
        if name == "clean" and self.heldout is not None:
            return self.heldout
        folders = number_folders(os.path.join(self._folders[name], str(severity)), self.class_names, "root")
        return ImageFiles(folders, "root", self.image_size, None, self.unreadable)

    def _photographs(self, argument: str) -> ImageFiles:
        return ImageFiles(self._clean[argument], argument, self.image_size, self.resize, self.unreadable)


def _corruption_folders(root: str) -> dict[str, str]:
    top = [os.path.join(root, name) for name in class_folders(root, "root", CORRUPTED_LAYOUT)]
    nested = [str(entry) for folder in top for entry in sorted(Path(folder).iterdir()) if entry.is_dir()]
    levels = [str(number) for number in range(1, SEVERITIES + 1)]
    found = [path for path in [*top, *nested] if any(os.path.isdir(os.path.join(path, level)) for level in levels)]
    if not found:
        raise InputError(
            f"root: no corruption in {root!r} (looked at {Path(root).resolve()}); "
            f"download the data set and unpack it as {CORRUPTED_LAYOUT}."
        )
    return {os.path.basename(path): path for path in found}


class ImageNetVariant(StreamDataModule):
    """ImageNet-A, -R, -V2 or -Sketch as a stream of one domain, such as ``imagenet_r``.

    ImageNet-A and -R have 200 of the 1000 classes: labels count in these, ascending, and the model must give 200
    logits, as ``models.ClassSubset`` makes it do. Sources: https://arxiv.org/abs/1907.07174 (A),
    https://arxiv.org/abs/2006.16241 (R), https://arxiv.org/abs/1902.10811 (V2), https://arxiv.org/abs/1905.13549
    (Sketch).
    """

    def __init__(
        self,
        root: str,
        name: Literal["a", "r", "v2", "sketch"],
        image_size: int = 224,
        resize: int = 256,
        unreadable: Unreadable = "refuse",
        **options: Any,  # noqa: ANN401 - the base names and types them
    ) -> None:
        """Check the arguments; images are listed in ``setup``.

        Args:
            root: Folder with one sub-folder per class, named by WordNet identifier, or by number in ImageNet-V2.
            name: ``a``, ``r``, ``v2`` or ``sketch``.
            image_size: Side of the central square that is cut out.
            resize: Length to which the shorter side is scaled before cutting.
            unreadable: ``refuse`` stops at an image that cannot be read; ``skip`` decodes all images in ``setup`` and
                leaves these out, with a warning.
            **options: Arguments of ``StreamDataModule``.

        Raises:
            InputError: If an argument is out of range, the folder is missing, or a class folder is unknown.
        """
        self.name = check_name(name, PLACES, "name")
        super().__init__(**options)
        check_sizes(image_size, resize)
        self.class_names = imagenet_classes(f"imagenet_{name}" if name in ("a", "r") else None)
        class_folders(root, "root", f"ROOT/CLASS/IMAGE from {PLACES[name]}")
        self._folders = number_folders(root, self.class_names, "root")
        self.image_size = image_size
        self.resize = resize
        self.unreadable = check_unreadable(unreadable)

    def available_domains(self) -> list[str]:
        """The one domain."""
        return [f"imagenet_{self.name}"]

    def check_domain(self, text: str) -> str:
        """Return the domain if it is this data set's.

        Args:
            text: Such as ``imagenet_r``.

        Raises:
            InputError: If it is another one.
        """
        return check_name(text, self.available_domains(), "domains")

    def setup(self, stage: str | None = None) -> None:
        """List the images, once.

        Args:
            stage: Ignored: all stages need the same.
        """
        if not hasattr(self, "_images"):
            self._images = ImageFiles(self._folders, "root", self.image_size, self.resize, self.unreadable)

    def images_of(self, condition: str) -> ImageData:
        """All images.

        Args:
            condition: The one domain.
        """
        return self._images
