"""The published corruptions, by the libraries they were published with: what ours are measured against.

Runs in an interpreter of its own, which ``run.py`` starts; its libraries are too old for ours:

    python3.11 -m venv reference
    reference/bin/pip install 'setuptools<80' 'numpy<2' 'scikit-image<0.22' imagecorruptions==1.1.2

Every function restates a definition of Hendrycks & Dietterich (https://github.com/hendrycks/robustness), with the
parameters of a size set as arguments. Motion blur is imagecorruptions', as ImageMagick's needs a system library.
"""

import functools
import io
import math
from pathlib import Path
from typing import Any

import cv2
import imagecorruptions
import numpy as np
import skimage
from imagecorruptions.corruptions import _motion_blur, plasma_fractal
from numba import njit
from PIL import Image
from scipy.ndimage import map_coordinates, zoom
from skimage.filters import gaussian

Array = np.ndarray[Any, Any]
FROST = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")


def gaussian_noise(x: Array, std: float) -> Array:
    return x + np.random.normal(size=x.shape, scale=std)


def shot_noise(x: Array, photons: float) -> Array:
    return np.random.poisson(x * photons) / photons


def impulse_noise(x: Array, share: float) -> Array:
    return skimage.util.random_noise(x, mode="s&p", amount=share, rng=np.random.randint(2**31))


def speckle_noise(x: Array, std: float) -> Array:
    return x + x * np.random.normal(size=x.shape, scale=std)


def gaussian_blur(x: Array, sigma: float) -> Array:
    return gaussian(x, sigma=sigma, channel_axis=-1)


def defocus_blur(x: Array, radius: float, alias_blur: float) -> Array:
    line, window = (np.arange(-8, 9), (3, 3)) if radius <= 8 else (np.arange(-radius, radius + 1), (5, 5))
    disk = (line[:, None] ** 2 + line**2 <= radius**2).astype(np.float32)
    return cv2.filter2D(x, -1, cv2.GaussianBlur(disk / disk.sum(), window, alias_blur))


def glass_blur(x: Array, sigma: float, reach: float, iterations: float) -> Array:
    levels = np.uint8(gaussian(x, sigma=sigma, channel_axis=-1) * 255)
    moves = np.random.randint(-int(reach), int(reach), size=(int(iterations), *x.shape[:2], 2))
    return gaussian(_move_pixels(levels, moves, int(reach)) / 255, sigma=sigma, channel_axis=-1)


@njit
def _move_pixels(levels: Array, moves: Array, reach: int) -> Array:
    height, width = levels.shape[:2]
    for iteration in range(len(moves)):
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                right, down = moves[iteration, row, column]
                levels[row, column] = levels[row + down, column + right]  # the published swap of views copies
    return levels


def motion_blur(x: Array, radius: float, sigma: float) -> Array:
    return _motion_blur(x, int(radius), sigma, np.random.uniform(-45, 45))


def zoom_blur(x: Array, largest: float, layers: float) -> Array:
    step = round((largest - 1) / (layers - 1), 2)
    factors = np.arange(int(layers)) * step + 1
    return (x + sum(_clipped_zoom(x.astype(np.float32), factor) for factor in factors)) / (len(factors) + 1)


def _clipped_zoom(x: Array, factor: float) -> Array:
    side = len(x)
    small = math.ceil(side / factor)
    top = (side - small) // 2
    large = zoom(x[top : top + small, top : top + small], (factor, factor, 1), order=1)
    top = (len(large) - side) // 2
    return large[top : top + side, top : top + side]


def snow(
    x: Array, mean: float, std: float, factor: float, threshold: float, radius: float, sigma: float, clarity: float
) -> Array:
    flakes = _clipped_zoom(np.random.normal(mean, std, (*x.shape[:2], 1)), factor)
    flakes[flakes < threshold] = 0
    flakes = _motion_blur(flakes[..., 0].clip(0, 1), int(radius), sigma, np.random.uniform(-135, -45))[..., None]
    grey = cv2.cvtColor(x.astype(np.float32), cv2.COLOR_RGB2GRAY)[..., None]
    return clarity * x + (1 - clarity) * np.maximum(x, grey * 1.5 + 0.5) + flakes + np.rot90(flakes, 2)


def frost(x: Array, clarity: float, weight: float, scale: float) -> Array:
    photograph = _photograph(FROST[np.random.randint(5)], scale)
    side = len(x)
    top, left = (np.random.randint(0, length - side) for length in photograph.shape[:2])
    return clarity * x + weight * photograph[top : top + side, left : left + side, ::-1] / 255


@functools.lru_cache(maxsize=32)
def _photograph(name: str, scale: float) -> Array:
    photograph = cv2.imread(str(Path(imagecorruptions.__file__).parent / "frost" / name))
    return photograph if scale == 1 else cv2.resize(photograph, (0, 0), fx=scale, fy=scale)


def fog(x: Array, amount: float, decay: float) -> Array:
    side = len(x)
    clouds = plasma_fractal(2 ** math.ceil(math.log2(side)), decay)[:side, :side, None]
    return (x + amount * clouds) * x.max() / (x.max() + amount)


def spatter(
    x: Array, mean: float, std: float, sigma: float, threshold: float, strength: float, softness: float, mud: float
) -> Array:
    liquid = gaussian(np.random.normal(mean, std, x.shape[:2]), sigma=sigma)
    liquid[liquid < threshold] = 0
    if mud:
        cover = gaussian((liquid > threshold).astype(np.float32), sigma=softness)[..., None]
        cover[cover < 0.8] = 0
        return x * (1 - cover) + cover * np.array([63, 42, 20]) / 255
    levels = (liquid * 255).astype(np.uint8)
    distance = cv2.distanceTransform(255 - cv2.Canny(levels, 50, 150), cv2.DIST_L2, 5)
    distance = cv2.equalizeHist(cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8))
    lit = cv2.filter2D(distance, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    gloss = levels * cv2.blur(lit, (3, 3)).astype(np.float32)
    return x + strength * (gloss / max(gloss.max(), 1))[..., None] * np.array([175, 238, 238]) / 255


def contrast(x: Array, factor: float) -> Array:
    means = x.mean((0, 1), keepdims=True)
    return (x - means) * factor + means


def brightness(x: Array, amount: float) -> Array:
    hsv = skimage.color.rgb2hsv(x)
    hsv[..., 2] = (hsv[..., 2] + amount).clip(0, 1)
    return skimage.color.hsv2rgb(hsv)


def saturate(x: Array, factor: float, offset: float) -> Array:
    hsv = skimage.color.rgb2hsv(x)
    hsv[..., 1] = (hsv[..., 1] * factor + offset).clip(0, 1)
    return skimage.color.hsv2rgb(hsv)


def pixelate(x: Array, scale: float) -> Array:
    image, side = Image.fromarray(np.uint8(np.round(x * 255))), len(x)
    small = image.resize((int(side * scale), int(side * scale)), Image.Resampling.BOX)
    return np.asarray(small.resize((side, side), Image.Resampling.BOX)) / 255


def jpeg_compression(x: Array, quality: float) -> Array:
    file = io.BytesIO()
    Image.fromarray(np.uint8(np.round(x * 255))).save(file, "JPEG", quality=int(quality))
    return np.asarray(Image.open(file)) / 255


def elastic_transform(x: Array, alpha: float, sigma: float, displacement: float) -> Array:
    centre, leg = np.float32(x.shape[:2]) // 2, min(x.shape[:2]) // 3
    points = np.float32([centre + leg, [centre[0] + leg, centre[1] - leg], centre - leg])
    moved = points + np.random.uniform(-displacement, displacement, points.shape).astype(np.float32)
    matrix = cv2.getAffineTransform(points, moved)
    size = x.shape[1::-1]
    sheared = cv2.warpAffine(x.astype(np.float32), matrix, size, borderMode=cv2.BORDER_REFLECT_101)
    right, down = (
        gaussian(np.random.uniform(-1, 1, x.shape[:2]), sigma, mode="reflect", truncate=3) * alpha for _ in range(2)
    )
    rows, columns = np.indices(x.shape[:2])
    channels = [
        map_coordinates(sheared[..., channel], (rows + down, columns + right), order=1, mode="reflect")
        for channel in range(3)
    ]
    return np.stack(channels, -1)
