"""CIFAR-10 in ten corruption domains as a real folder tree, ``root/DOMAIN/CLASS/IMAGE.png``.

Six domains to train on, of different training images each, and four that training does not see, each of the same
test images.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from datamodules import Domain, corrupt

GROUPS = (("gaussian_noise", "impulse_noise"), ("defocus_blur", "motion_blur"), ("contrast", "fog"))
UNSEEN = ("shot_noise", "zoom_blur", "frost", "saturate")
SEVERITY = 5


def write_tree(cifar: Path, root: Path, train_per_domain: int = 1250, test_per_domain: int = 300) -> None:
    """Write the tree if it is not there.

    Args:
        cifar: Folder with ``train/CLASS/*.jpg`` and ``test/CLASS/*.jpg``.
        root: The tree's.
        train_per_domain: Images of each domain to train on.
        test_per_domain: Images of each unseen domain.
    """
    if (root / "complete").exists():
        return
    sources = [name for group in GROUPS for name in group]
    for number, name in enumerate(sources):
        _write(cifar / "train", root / name, name, number * train_per_domain // 10, train_per_domain // 10)
    for name in UNSEEN:
        _write(cifar / "test", root / name, name, 0, test_per_domain // 10)
    (root / "complete").touch()


def _write(images: Path, to: Path, name: str, first: int, count: int) -> None:
    domain = Domain.parse(name, SEVERITY)
    for place, folder in enumerate(sorted(images.iterdir())):
        files = sorted(folder.iterdir())[first : first + count]
        clean = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
        shown = corrupt(
            torch.from_numpy(clean).permute(0, 3, 1, 2).float() / 255,
            domain,
            seed=0,
            indices=[place * 10000 + first + row for row in range(len(files))],
        )
        (to / folder.name).mkdir(parents=True, exist_ok=True)
        for file, image in zip(files, (shown * 255).round().to(torch.uint8), strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(to / folder.name / f"{file.stem}.png")
