"""Decoding of image files: to a wanted size, and to find the files that cannot be read."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from tqdm import tqdm

from datamodules.checks import check_at_least
from tta.errors import InputError

CHUNK = 256
"""Files that a thread checks in one go."""

READING_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def load_image(path: str) -> Tensor:
    """Decode an image file.

    Args:
        path: A file in any format that Pillow reads.

    Returns:
        uint8, shape ``(3, H, W)``.

    Raises:
        InputError: If the file cannot be read as an image.
    """
    try:
        with Image.open(path) as image:
            pixels: Tensor = F.pil_to_tensor(image.convert("RGB"))
    except READING_ERRORS as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"image: {path!r} cannot be read ({reason}); replace or delete the file, or pass over such files with "
            "unreadable='skip' where the data set takes it."
        ) from error
    return pixels


def check_sizes(image_size: int | None, resize: int | None) -> None:
    """Refuse sizes that ``fit_size`` cannot give.

    Args:
        image_size: Side of the square that is cut out, at least 8, or ``None``.
        resize: Length of the shorter side before that, at least ``image_size``, or ``None``.

    Raises:
        InputError: If one of them is too small, or ``resize`` is given alone.
    """
    if image_size is not None:
        check_at_least(image_size, 8, "image_size", "leave it out to keep the images as they are")
    if resize is not None:
        if image_size is None:
            raise InputError(f"resize: {resize} is given without an image_size; set both, such as 256 and 224.")
        check_at_least(resize, image_size, "resize", "leave it out to scale to image_size")


def fit_size(pixels: Tensor, image_size: int | None, resize: int | None) -> Tensor:
    """Scale an image and cut out its centre.

    Scaling is bilinear with antialiasing, and rounds to whole grey levels as image libraries do.

    Args:
        pixels: uint8, shape ``(3, H, W)``.
        image_size: Side of the central square to cut out; the image stays as it is if ``None``.
        resize: Length of the shorter side before cutting; ``image_size`` if ``None``.

    Returns:
        float32, shape ``(3, image_size, image_size)`` or ``(3, H, W)``, in [0, 1].
    """
    if image_size is not None:
        scaled = F.resize(pixels, [resize or image_size], antialias=True)
        pixels = F.center_crop(scaled, [image_size])
    return pixels.to(torch.float32, memory_format=torch.contiguous_format) / 255


def find_unreadable(path_of: Callable[[int], str], count: int) -> list[int]:
    """Decode every file in threads, JPEG at an eighth of its size, and note the ones that fail.

    Args:
        path_of: Gives the path at a position.
        count: Number of files.

    Returns:
        Ascending positions of the files that are no image, or one that ends too early.
    """
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    bad: list[int] = []
    with ThreadPoolExecutor() as pool, tqdm(total=count, desc="checking images", leave=False, disable=None) as bar:
        for chunk, found in zip(chunks, pool.map(partial(_unreadable_of, path_of), chunks), strict=True):
            bad += found
            bar.update(len(chunk))
    return bad


def _unreadable_of(path_of: Callable[[int], str], positions: range) -> list[int]:
    return [position for position in positions if not _is_readable(path_of(position))]


def _is_readable(path: str) -> bool:
    try:
        with Image.open(path) as image:
            # A smaller JPEG saves the inverse transform; its data is read to the end all the same.
            image.draft("RGB", (1, 1))
            image.convert("RGB")
    except READING_ERRORS:
        return False
    return True
