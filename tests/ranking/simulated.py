"""Experiments whose truth is known."""

import numpy as np
from scipy.special import expit

from tta.ranking import Block


def block(correct, task="model / stream", seed=0, images=None, **metrics):
    """A block from lists; images are numbered in order unless given."""
    correct = np.array(correct, dtype=np.float64)
    images = np.arange(correct.shape[1]) if images is None else np.array(images)
    return Block(task, seed, correct, images, {name: np.array(values, dtype=float) for name, values in metrics.items()})


def rasch(random, strengths, difficulties):
    """Right (1) or wrong (0), ``(S, N)``: the log-odds of being right are strength minus difficulty."""
    chance = expit(np.asarray(strengths)[:, None] - difficulties[None, :])
    return (random.random(chance.shape) < chance).astype(np.float64)


def informative_gaps(seed, missing, systems=20, chunks=500, samples=40):
    """Systems measured mostly on samples that suit their strength: weak ones on easy samples, strong ones on hard.

    Strengths are spaced evenly from -1.5 to 1.5 and dealt to the systems at random. Samples come in chunks. A chunk's
    difficulty is drawn from N(0, 2), a sample's from N(chunk, 0.5), and who is right follows a Rasch model. A cell is a
    system on a chunk. Of each system a share ``missing`` of the cells is left out: it keeps chunks drawn without
    replacement with probability proportional to the normal density, of deviation 1, of the chunk's difficulty around
    1.5 times the system's strength. What is missing depends on system and difficulty, never on how a sample turned out.

    Returns:
        Strengths ``(S,)``, and who is right, ``(S, chunks, samples)``, NaN where left out.
    """
    random = np.random.default_rng(seed)
    strengths = random.permutation(np.linspace(-1.5, 1.5, systems))
    chunk = random.normal(0, 2, chunks)
    difficulties = random.normal(chunk[:, None], 0.5, (chunks, samples))
    correct = rasch(random, strengths, difficulties.ravel()).reshape(systems, chunks, samples)
    for strength, row in zip(strengths, correct, strict=True):
        weight = np.exp(-0.5 * (chunk - 1.5 * strength) ** 2)
        kept = random.choice(chunks, round((1 - missing) * chunks), replace=False, p=weight / weight.sum())
        row[np.setdiff1d(np.arange(chunks), kept)] = np.nan
    return strengths, correct
