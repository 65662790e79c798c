"""Labelled source images made to look like the stream, to measure accuracy where no target label is known."""

import numpy as np
import torch
from torch import Tensor

from tta.adapters.base import Stateful
from tta.errors import InputError
from tta.functional.label_shift import bias_corrected_temperature, expectation_maximization
from tta.functional.spectrum import Spectrum, match_spectrum, spectra

RECENT = 128
"""Target images whose spectra probes are given."""

NEIGHBOURS = 16
"""Recent images over whose spectra each probe's is averaged: few enough to be of one domain where domains mix."""

SMALLEST = 1e-4
"""Prior of a class in probes below which its logarithm is not taken further down."""

CONCENTRATION = 1.1
"""Of the Dirichlet prior that keeps the composition of a small batch from being taken too literally."""


class MatchedSource(Stateful):
    """Draws labelled source images in the likeness of the stream: its power spectra and its classes.

    All state is in buffers of fixed size, images as bytes.

    Args:
        size: Source images kept, and answers of the source model on probes that are remembered.
        seed: Non-negative seed of draws and noise.
    """

    images: Tensor
    labels: Tensor
    source_mean: Tensor
    source_power: Tensor
    recent: Tensor
    seen: Tensor
    logits: Tensor
    priors: Tensor
    answered: Tensor
    answers: Tensor
    draws: Tensor

    def __init__(self, size: int, seed: int) -> None:
        super().__init__()
        self.size = size
        self.seed = seed
        for name in ("images", "recent"):
            self.register_buffer(name, torch.empty(0, dtype=torch.uint8))
        for name in ("labels", "answered"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64))
        for name in ("source_mean", "source_power", "logits", "priors"):
            self.register_buffer(name, torch.empty(0))
        for name in ("seen", "answers", "draws"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    @property
    def filled(self) -> bool:
        """Whether it holds images."""
        return len(self.images) > 0

    @property
    def num_classes(self) -> int:
        """Number of classes ``K``."""
        return self.logits.shape[1]

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
        order = labels.argsort(stable=True)
        rows = order[torch.linspace(0, len(labels) - 1, min(self.size, len(labels)), device=labels.device).long()]
        self.images = (images[rows] * 255).round().byte()
        self.labels = labels[rows]
        whole = spectra(images).average()
        self.source_mean, self.source_power = whole.mean, whole.power
        self.recent = torch.zeros(RECENT, *images.shape[1:], dtype=torch.uint8, device=images.device)
        self.logits = torch.zeros(self.size, num_classes, device=images.device)
        self.priors = torch.zeros(self.size, num_classes, device=images.device)
        self.answered = torch.zeros(self.size, dtype=torch.int64, device=images.device)
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        for buffer in (self.recent, self.seen, self.logits, self.priors, self.answered, self.answers, self.draws):
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

    def composition(self, logits: Tensor) -> Tensor:
        """Classes of a batch: the most likely prior, given the source model's logits calibrated on recent probes.

        Args:
            logits: Of the source model, shape ``(B, K)``.

        Returns:
            Probabilities, float32, shape ``(K,)``.
        """
        with torch.autocast(logits.device.type, enabled=False):
            return self._most_likely(logits.float())

    def _most_likely(self, logits: Tensor) -> Tensor:
        known = min(int(self.answers), self.size)
        uniform = torch.full_like(logits[0], 1 / self.num_classes)
        temperature, bias = bias_corrected_temperature(
            self.logits[:known],
            self.answered[:known],
            self.priors[:known].clamp_min(SMALLEST).log(),
            torch.zeros_like(uniform),
        )
        posteriors = (logits / temperature + bias).softmax(dim=1)
        return expectation_maximization(posteriors, uniform, concentration=CONCENTRATION)

    def draw(self, prior: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Labelled images in the likeness of the stream.

        Args:
            prior: Probabilities of the classes, shape ``(K,)``.
            count: Number of images.

        Returns:
            Images, float32, shape ``(count, C, H, W)``, in ``[0, 1]``, and their classes.
        """
        with torch.autocast(self.images.device.type, enabled=False):
            return self._drawn(prior.float(), count)

    def _drawn(self, prior: Tensor, count: int) -> tuple[Tensor, Tensor]:
        number = int(np.random.SeedSequence((self.seed, int(self.draws))).generate_state(1)[0])
        generator = torch.Generator(self.images.device).manual_seed(number)
        self.draws += 1
        shares = prior / torch.bincount(self.labels, minlength=len(prior)).clamp_min(1)
        rows = torch.multinomial(shares[self.labels], count, replacement=True, generator=generator)
        present = spectra(self.recent[: int(self.seen)].float() / 255)
        models = torch.randint(len(present.mean), (count,), generator=generator, device=self.images.device)
        target = present.neighbourhoods(models, NEIGHBOURS)
        source = Spectrum(self.source_mean, self.source_power)
        return match_spectrum(self.images[rows].float() / 255, source, target, generator), self.labels[rows]

    def learn(self, logits: Tensor, labels: Tensor, prior: Tensor) -> None:
        """Remember what the source model said on probes.

        Args:
            logits: Shape ``(n, K)``.
            labels: Classes of the probes, int64, shape ``(n,)``.
            prior: What they were drawn with, shape ``(K,)``.
        """
        logits, labels = logits[-self.size :], labels[-self.size :]
        slots = (int(self.answers) + torch.arange(len(labels), device=labels.device)) % self.size
        self.logits[slots], self.answered[slots], self.priors[slots] = logits, labels, prior
        self.answers += len(labels)
