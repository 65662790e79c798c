"""Give labelled images the look of unlabelled ones by matching their average power spectrum."""

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST = 1e-8
"""Keeps a ratio of powers finite."""

BANDS = 8
"""Bands of frequency by which spectra are compared."""


@dataclass(frozen=True)
class Spectrum:
    """Second-order statistics of images, of each or averaged over a set.

    Attributes:
        mean: Mean value per channel, float32, shape ``(..., C)``.
        power: Squared magnitude of the discrete Fourier transform of an image less its own mean, float32, shape
            ``(..., C, H, W // 2 + 1)``.
    """

    mean: Tensor
    power: Tensor

    def average(self) -> "Spectrum":
        """Averaged over the first axis."""
        return Spectrum(self.mean.mean(dim=0), self.power.mean(dim=0))

    def neighbourhoods(self, rows: Tensor, size: int) -> "Spectrum":
        """For some images, the average over those whose spectra are most alike, themselves included.

        Alike are images of near mean colours and near logarithms of the power in eight bands of frequency.

        Args:
            rows: Which images, int64, shape ``(n,)``.
            size: Images in a neighbourhood, at least 1; all if there are fewer.

        Returns:
            Spectra with a first axis of ``n``.
        """
        features = self._features()
        nearest = torch.cdist(features[rows], features).topk(min(size, len(features)), dim=1, largest=False).indices
        weights = torch.zeros(len(rows), len(features), device=features.device).scatter_(1, nearest, 1.0)
        weights = weights / weights.sum(dim=1, keepdim=True)
        return Spectrum(weights @ self.mean, torch.einsum("ni,ichw->nchw", weights, self.power))

    def _features(self) -> Tensor:
        height, half = self.power.shape[-2:]
        vertical = torch.fft.fftfreq(height, device=self.power.device).abs()
        horizontal = torch.linspace(0.0, 0.5, half, device=self.power.device)
        radius = (vertical[:, None].square() + horizontal.square()).sqrt()
        band = (radius / 0.5 * BANDS).long().clamp(max=BANDS - 1).flatten()
        # A product, as adding by index is not deterministic on a GPU.
        members = torch.nn.functional.one_hot(band, BANDS).to(self.power.dtype)
        levels = (self.power.flatten(-2) @ members / members.sum(dim=0).clamp_min(1)).clamp_min(SMALLEST).log()
        return torch.cat([levels.flatten(1), 10.0 * self.mean], dim=1)


def spectra(images: Tensor) -> Spectrum:
    """Spectrum of each image.

    Args:
        images: Shape ``(B, C, H, W)``, floating point.

    Returns:
        Mean colours and power spectra with a first axis of ``B``.
    """
    images = images.float()
    return Spectrum(images.mean(dim=(2, 3)), _transform(images).abs().square())


def match_spectrum(images: Tensor, source: Spectrum, target: Spectrum, generator: torch.Generator) -> Tensor:
    r"""Change images of average spectrum ``source`` so that they have average spectrum ``target``.

    Frequencies at which the target has less power are damped by :math:`\sqrt{P_t/P_s}`, as blur, fog or low contrast
    do. Where it has more, Gaussian noise of power :math:`P_t - P_s` is added, as sensors do; the image's own phases
    stay. The mean colour is shifted. This is the Gaussian channel with the target's second-order statistics: what it
    cannot imitate is everything else, such as geometric distortion or occlusion.

    Args:
        images: Shape ``(B, C, H, W)``, floating point, in ``[0, 1]``.
        source: Spectrum of the set that they are from.
        target: Spectrum to reach; with a first axis of ``B``, one for each image.
        generator: Draws the noise; on the device of ``images``.

    Returns:
        Float32, the shape of ``images``, in ``[0, 1]``.

    References:
        Exchanging low-frequency amplitudes between domains: FDA, CVPR 2020, https://arxiv.org/abs/2004.05498. Here
        amplitudes change by average power at all frequencies, and only downwards.
    """
    images = images.float()
    height, width = images.shape[-2:]
    damped = _transform(images) * (target.power / source.power.clamp_min(SMALLEST)).clamp(max=1.0).sqrt()
    noise = torch.fft.rfft2(torch.randn(images.shape, generator=generator, device=images.device))
    missing = ((target.power - source.power).clamp(min=0.0) / (height * width)).sqrt()
    changed = torch.fft.irfft2(damped + noise * missing, s=(height, width))
    colour = images.mean(dim=(2, 3), keepdim=True) + (target.mean - source.mean)[..., None, None]
    matched: Tensor = (changed + colour).clamp(0.0, 1.0)
    return matched


def _transform(images: Tensor) -> Tensor:
    transformed: Tensor = torch.fft.rfft2(images - images.mean(dim=(2, 3), keepdim=True))
    return transformed
