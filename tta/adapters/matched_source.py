"""Labelled source images made to look like the stream, to measure accuracy where no target label is known."""

import numpy as np
import torch
from torch import Tensor

from tta.errors import InputError
from tta.functional.label_shift import expectation_maximization
from tta.functional.spectrum import Spectrum, match_spectrum, spectra
from tta.growing_buffers import GrowingBuffers
from tta.seeds import derived_seed

RECENT = 128
"""Target images whose spectra probes are given."""

NEIGHBOURS = 16
"""Recent images over whose spectra each probe's is averaged: few enough to be of one domain where domains mix."""

HORIZON = 256
"""Samples over which a model's usual prediction is averaged, exponentially."""

SMOOTHING = 0.01
"""Added to the usual probability of every class."""

EVENNESS = 1 / 320
"""Samples of each class, as a share of the batch, that are added to it: its composition is not taken too literally."""


class MatchedSource(GrowingBuffers):
    """Draws labelled source images in the likeness of the stream: its power spectra and its classes.

    All state is in buffers of fixed size, images as bytes.

    Args:
        size: Source images kept.
        seed: Non-negative seed of draws and noise.
    """

    images: Tensor
    labels: Tensor
    source_mean: Tensor
    source_power: Tensor
    recent: Tensor
    seen: Tensor
    usual: Tensor
    compared: Tensor
    draws: Tensor

    def __init__(self, size: int, seed: int) -> None:
        super().__init__()
        self.size = size
        self.seed = seed
        for name in ("images", "recent"):
            self.register_buffer(name, torch.empty(0, dtype=torch.uint8))
        self.register_buffer("labels", torch.empty(0, dtype=torch.int64))
        for name in ("source_mean", "source_power", "usual"):
            self.register_buffer(name, torch.empty(0))
        for name in ("seen", "compared", "draws"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    @property
    def filled(self) -> bool:
        """Whether it holds images."""
        return len(self.images) > 0

    @property
    def uniform(self) -> Tensor:
        """The prior that gives every class its equal share, shape ``(K,)``."""
        return torch.full_like(self.usual, 1 / len(self.usual))

    def fill(self, images: Tensor, labels: Tensor, num_classes: int) -> None:
        """Take over source images.

        Args:
            images: Shape ``(N, C, H, W)``, in ``[0, 1]``; at most ``size`` are kept, classes in their shares.
            labels: Int64, shape ``(N,)``.
            num_classes: Number of classes ``K``.

        Raises:
            InputError: If images leave ``[0, 1]``, or a class has none.
        """
        low, high = float(images.min()), float(images.max())
        if low < 0.0 or high > 1.0:
            raise InputError(
                f"source images from {low:.3g} to {high:.3g}: the guard matches images in [0, 1]; put normalisation "
                "into the model"
            )
        counts = torch.bincount(labels, minlength=num_classes)
        if len(counts) != num_classes or not bool((counts > 0).all()):
            odd = int(labels.max()) if len(counts) != num_classes else int((counts == 0).nonzero()[0])
            raise InputError(
                f"the {len(labels)} source images and the model's {num_classes} classes do not fit at class {odd}: "
                "the guard needs at least one source image of every class"
            )
        if self.size < num_classes:
            raise InputError(f"images={self.size} for {num_classes} classes: the guard needs one of every class")
        order = labels.argsort(stable=True)
        rows = order[torch.linspace(0, len(labels) - 1, min(self.size, len(labels)), device=labels.device).long()]
        self.images = (images[rows] * 255).round().byte()
        self.labels = labels[rows]
        whole = spectra(self.images.float() / 255).average()
        self.source_mean, self.source_power = whole.mean, whole.power
        self.recent = torch.zeros(RECENT, *images.shape[1:], dtype=torch.uint8, device=images.device)
        self.usual = torch.zeros(num_classes, device=images.device)
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        for buffer in (self.recent, self.seen, self.usual, self.compared, self.draws):
            buffer.zero_()

    def check(self, x: Tensor) -> None:
        """Raise ``InputError`` if target images, shape ``(B, C, H, W)``, are of another size than the source's."""
        if x.shape[1:] != self.images.shape[1:]:
            raise InputError(
                f"images of {tuple(x.shape[1:])} in a stream whose source images are {tuple(self.images.shape[1:])}: "
                "the guard compares images of one size"
            )

    def see(self, x: Tensor) -> None:
        """Remember the latest target images.

        Args:
            x: Shape ``(B, C, H, W)``, of the size of the source images.
        """
        x = (x[-RECENT:].clamp(0.0, 1.0) * 255).round().byte()
        slots = (int(self.seen) + torch.arange(len(x), device=x.device)) % RECENT
        self.recent[slots] = x
        self.seen += len(x)

    def composition(self, logits: Tensor, on_probes: Tensor) -> Tensor:
        """Classes of a batch, by how the source model's predictions differ from the usual ones.

        The most likely prior of the batch relative to the average prediction, which takes out what the model favours on
        such images whatever they are; once relative to the average over the last batches, once to that on probes of all
        classes. Where both have fewer than half of the classes that a shuffled batch would show, classes come in runs,
        and the less even one holds: what a method suffers from is the concentration. Elsewhere the more even one, so
        that neither a new domain, which changes what the model favours, nor what probes cannot imitate is taken for a
        new class balance. Rows that are not finite say nothing.

        Args:
            logits: Of the source model on the batch, shape ``(B, K)``.
            on_probes: Of the source model on probes drawn with a uniform prior, shape ``(n, K)``.

        Returns:
            Probabilities, float32, shape ``(K,)``; nearly even at the first batch, which is itself the usual.
        """
        logits, on_probes = (x[torch.isfinite(x).all(dim=1)] for x in (logits, on_probes))
        if not len(logits) or not len(on_probes):
            return self.uniform
        with torch.autocast(logits.device.type, enabled=False):
            posteriors = logits.float().softmax(dim=1)
            weight = 1.0 - float(np.exp(-len(logits) / HORIZON)) if int(self.compared) else 1.0
            self.usual.lerp_(posteriors.mean(dim=0), weight)
            self.compared += len(logits)
            usual = (self.usual, on_probes.float().softmax(dim=1).mean(dim=0))
            priors = torch.stack([_relative(posteriors, average) for average in usual])
        evenness = torch.special.entr(priors).sum(dim=1)
        classes = len(self.usual)
        shuffled = classes * (1.0 - (1.0 - 1.0 / classes) ** len(logits))
        in_runs = bool((evenness.exp() < shuffled / 2).all())
        return priors[evenness.argmin() if in_runs else evenness.argmax()]

    def looks(self) -> Spectrum:
        """Spectra of the latest target images, each averaged over those most like it, by place in memory."""
        known = min(int(self.seen), RECENT)
        with torch.autocast(self.images.device.type, enabled=False):
            rows = torch.arange(known, device=self.images.device)
            return spectra(self.recent[:known].float() / 255).neighbourhoods(rows, NEIGHBOURS)

    def draw(self, prior: Tensor, count: int, looks: Spectrum) -> tuple[Tensor, Tensor]:
        """Labelled images in the likeness of the stream.

        They look like images that came one after the other, as a batch of the stream: of one domain where it has one.

        Args:
            prior: Probabilities of the classes, shape ``(K,)``.
            count: Number of images.
            looks: What :meth:`looks` gave since the last image was seen.

        Returns:
            Images, float32, shape ``(count, C, H, W)``, in ``[0, 1]``, and their classes.
        """
        generator = torch.Generator(self.images.device).manual_seed(derived_seed(self.seed, int(self.draws)))
        self.draws += 1
        shares = prior.float() / torch.bincount(self.labels, minlength=len(prior)).clamp_min(1)
        rows = torch.multinomial(shares[self.labels], count, replacement=True, generator=generator)
        places = self._stretch(count, generator)
        target = Spectrum(looks.mean[places], looks.power[places])
        source = Spectrum(self.source_mean, self.source_power)
        return match_spectrum(self.images[rows].float() / 255, source, target, generator), self.labels[rows]

    def _stretch(self, count: int, generator: torch.Generator) -> Tensor:
        known = min(int(self.seen), RECENT)
        stretches = max(known // count, 1)
        back = int(torch.randint(stretches, (1,), generator=generator, device=self.images.device)) * count
        numbers = torch.arange(count, device=self.images.device) % known
        return (int(self.seen) - 1 - back - numbers) % RECENT


def _relative(posteriors: Tensor, usual: Tensor) -> Tensor:
    usual = (usual + SMOOTHING) / (1.0 + SMOOTHING * len(usual))
    ratio = expectation_maximization(posteriors, usual, concentration=1.0 + EVENNESS * len(posteriors)) / usual
    return ratio / ratio.sum()
