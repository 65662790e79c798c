"""Which image each sample shows: one number per image over all blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Columns: TypeAlias = dict[str, NDArray[Any]]
Block: TypeAlias = tuple[str, str, int]
Ints: TypeAlias = NDArray[np.int64]


def number_images(blocks: Mapping[Block, Columns]) -> dict[Block, Ints]:
    """Number the images of all blocks.

    A sample's `index` counts within its domain. Corruptions of one test set show the same image under the same index;
    folders of one domain each do not. Two domains are taken for one set of images unless an index has another label in
    one than in the other.

    Args:
        blocks: By model, stream and seed the columns `index` and `label` (int64, a negative label is unknown) and
            `domain` (text), shape `(N,)` each.

    Returns:
        A number for each sample of each block, int64, shape `(N,)`.
    """
    size = 1 + max((int(columns["index"].max(initial=0)) for columns in blocks.values()), default=0)
    labels: dict[tuple[str, str, str], Ints] = {}
    for (model, stream, _), columns in blocks.items():
        for domain in np.unique(columns["domain"]).tolist():
            here = columns["domain"] == domain
            of_index = labels.setdefault((model, stream, domain), np.full(size, -1))
            of_index[columns["index"][here]] = columns["label"][here]
    sets = _sets(labels)
    numbers = {}
    for (model, stream, seed), columns in blocks.items():
        names, place = np.unique(columns["domain"], return_inverse=True)
        first = np.array([size * sets[model, stream, name] for name in names.tolist()], dtype=np.int64)
        numbers[model, stream, seed] = columns["index"] + first[place]
    return numbers


def _sets(labels: Mapping[tuple[str, str, str], Ints]) -> dict[tuple[str, str, str], int]:
    """The set of images that each domain shows, from the label of each index, -1 where unknown."""
    known: list[Ints] = []
    found = {}
    for domain, own in labels.items():
        number = next((n for n, other in enumerate(known) if _agree(own, other)), len(known))
        found[domain] = number
        if number == len(known):
            known.append(own)
        else:
            known[number] = np.where(own >= 0, own, known[number])
    return found


def _agree(one: Ints, other: Ints) -> bool:
    return bool(((one == other) | (one < 0) | (other < 0)).all())
