"""Statistics by which two implementations of a corruption are compared; NumPy alone, for both interpreters."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
MEASURES = ("mean", "variance", "spectrum", "psnr")


def quantise(images: Array) -> Array:
    """Round images in [0, 1] to levels, uint8; values outside are clipped."""
    return np.uint8(np.round(np.clip(images, 0, 1) * 255))


def measure(clean: Array, corrupted: Array) -> Array:
    """Measure corrupted images.

    Args:
        clean: uint8, ``(N, H, W, 3)``.
        corrupted: Of the same shape and dtype.

    Returns:
        float64, ``(N, 3 + bands)``: mean, variance over pixels and channels, PSNR against the clean image in dB (whose
        mean squared error is at least that of rounding, 1/12 square level), and the power of the luminance in octaves
        of spatial frequency.
    """
    values = corrupted.astype(np.float32)
    error = ((values - clean) ** 2).mean((1, 2, 3), dtype=np.float64)
    psnr = 10 * np.log10(255**2 / np.maximum(error, 1 / 12))
    mean, variance = values.mean((1, 2, 3), dtype=np.float64), values.var((1, 2, 3), dtype=np.float64)
    return np.column_stack([mean, variance, psnr, _band_power(values @ np.float32([0.299, 0.587, 0.114]))])


def _band_power(luminance: Array) -> Array:
    side = luminance.shape[1]
    window = np.hanning(side).astype(np.float32)
    centred = (luminance - luminance.mean((1, 2), keepdims=True)) * window[:, None] * window
    power = np.abs(np.fft.rfft2(centred)) ** 2
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) * side
    octave = np.floor(np.log2(np.maximum(frequency, 1))).astype(int)
    octave[0, 0] = -1
    return np.stack([power[:, octave == band].mean(1) for band in range(octave.max())], 1)


def differences(ours: Array, reference: Array) -> dict[str, float]:
    """Compare two sets of measured images: relative differences of the averages over each set.

    Args:
        ours: As ``measure`` returns them, averages over any number of images.
        reference: Likewise.

    Returns:
        Per measure the absolute relative difference; of the spectrum the mean over bands of the absolute log-ratio,
        and as ``worst_band`` its maximum.
    """
    own, other = ours.mean(0), reference.mean(0)
    relative = np.abs(own[:3] / other[:3] - 1)
    ratios = np.abs(np.log((own[3:] + 1e-9) / (other[3:] + 1e-9)))
    found = {
        "mean": relative[0],
        "variance": relative[1],
        "spectrum": ratios.mean(),
        "psnr": relative[2],
        "worst_band": ratios.max(),
    }
    return {name: round(float(value), 5) for name, value in found.items()}
