"""Serves ``run.py`` from the reference interpreter: reads commands, one JSON object a line, and answers likewise."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import cv2
import imagecorruptions
import numpy as np
import skimage.filters
from PIL import Image

from benchmarks.corruptions import reference
from benchmarks.corruptions.measures import Array, measure, quantise

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png")
SUFFIXES = {".jpg", ".jpeg", ".png"}
AS_PUBLISHED = {  # in imagecorruptions, for images of 224 pixels
    "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "gaussian_blur", "defocus_blur", "motion_blur",
    "snow", "fog", "spatter", "contrast", "brightness", "saturate", "jpeg_compression",
}  # fmt: skip


def _gaussian(image: Array, *arguments: Any, multichannel: bool = False, **options: Any) -> Array:
    return skimage.filters.gaussian(image, *arguments, channel_axis=-1 if multichannel else None, **options)


imagecorruptions.corruptions.gaussian = _gaussian  # scikit-image renamed an argument that imagecorruptions passes


def photographs(folder: str | None, count: int, sizes: list[int], path: str) -> int:
    """Save square uint8 images of every size, cut from photographs that scikit-image ships, or from a folder's."""
    squares = _from_folder(Path(folder), count) if folder else _from_skimage()
    resized = {
        str(size): np.stack([np.asarray(square.resize((size, size), Image.Resampling.LANCZOS)) for square in squares])
        for size in sizes
    }
    np.savez(path, **resized)
    return len(squares)


def _from_skimage() -> list[Image.Image]:
    folder = Path(skimage.__file__).parent / "data"
    return [part for name in PHOTOGRAPHS for part in _parts(Image.open(folder / name).convert("RGB"))]


def _parts(image: Image.Image) -> list[Image.Image]:
    """Cut the central square, and squares two thirds as wide from its corners and centre."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    small, rest = side * 2 // 3, side - side * 2 // 3
    places = [(0, 0), (rest, 0), (0, rest), (rest, rest), (rest // 2, rest // 2)]
    boxes = [(left, top, left + side, top + side)]
    boxes += [(left + x, top + y, left + x + small, top + y + small) for x, y in places]
    return [image.crop(box) for box in boxes]


def _from_folder(folder: Path, count: int) -> list[Image.Image]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    chosen = paths[:: max(1, len(paths) // count)][:count]
    return [_parts(Image.open(path).convert("RGB"))[0] for path in chosen]


def corrupt(
    images: str, size: int, name: str, severity: int, parameters: list[float], draws: int, seed: int, path: str
) -> str:
    """Save the measures of corrupted images, and those of the first draw; return which implementation made them."""
    np.random.seed(seed)
    clean = np.load(images)[str(size)]
    official = size == 224 and name in AS_PUBLISHED
    apply = _official(name, severity) if official else _restated(name, parameters)
    batches = [quantise(np.stack([apply(image) for image in clean])) for _ in range(draws)]
    np.savez(path, measures=np.concatenate([measure(clean, batch) for batch in batches]), first=batches[0])
    return "imagecorruptions" if official else "restated"


def _official(name: str, severity: int) -> Callable[[Array], Array]:
    function = getattr(imagecorruptions.corruptions, name)
    return lambda image: np.asarray(function(Image.fromarray(image), severity)) / 255


def _restated(name: str, parameters: list[float]) -> Callable[[Array], Array]:
    function = getattr(reference, name)
    return lambda image: function(image / 255, *parameters)


def seconds(images: str, name: str, severity: int, count: int) -> float:
    """Time imagecorruptions, from uint8 images (H, W, 3) to float32 ones (3, H, W) in [0, 1]; seconds per image."""
    chosen = np.load(images)["224"][:count]
    start = time.perf_counter()
    for image in chosen:
        corrupted = imagecorruptions.corrupt(image, corruption_name=name, severity=severity)
        np.divide(corrupted.transpose(2, 0, 1), np.float32(255), order="C")
    return (time.perf_counter() - start) / len(chosen)


def versions() -> dict[str, str]:
    """Name the libraries."""
    return {
        "imagecorruptions": "1.1.2",
        "numpy": np.__version__,
        "scikit-image": skimage.__version__,
        "opencv": cv2.__version__,
    }


COMMANDS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (photographs, corrupt, seconds, versions)
}


def main() -> None:
    cv2.setNumThreads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(COMMANDS[command.pop("do")](**command)), file=answers, flush=True)


if __name__ == "__main__":
    main()
