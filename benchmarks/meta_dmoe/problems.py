"""What is trained on what: domains, networks, and the settings among which is chosen."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from benchmarks.meta_dmoe.folder import GROUPS, UNSEEN
from benchmarks.meta_dmoe.network import SmallNetwork
from datamodules import DomainFolderStream, RotatedDigitsStream, StreamDataModule
from models import CifarResNet

TREE = Path("runs/meta_dmoe/tree")
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...], tuple[str, ...]]] = {
    "small": (SmallNetwork, ("benchmarks.meta_dmoe.network.SmallNetwork",), ()),
    "ResNet-8": (lambda: CifarResNet(depth=8), ("models.CifarResNet",), ("depth", "8")),
}


@dataclass(frozen=True)
class Problem:
    """Groups of domains to train on, and domains that training does not see."""

    groups: tuple[tuple[str, ...], ...]
    source: tuple[str, ...]
    option: str
    stream: Callable[[int], StreamDataModule]
    network: str
    annealed: bool = True

    @property
    def epochs(self) -> int:
        return 6 if self.annealed else 4

    @property
    def domains(self) -> list[str]:
        return [name for group in self.groups for name in group]


@dataclass(frozen=True)
class Recipe:
    """How experts, aggregator and student are brought together; as published by default."""

    aligned: bool = False
    hide: bool = False
    warm_start: int = 0


RECIPES = {
    "aligned": Recipe(aligned=True, hide=True),
    "as published": Recipe(),
    "aligned, warm start": Recipe(aligned=True, hide=True, warm_start=100),
}


def digits(groups: tuple[tuple[str, ...], ...], targets: tuple[str, ...], network: str) -> Problem:
    def stream(seed: int) -> StreamDataModule:
        return RotatedDigitsStream([float(name) for name in targets], image_size=16, seed=seed, split_seed=seed)

    source = ("--config", "configs/data/digits_rotated_source.yaml", "--data.image_size", "16")
    return Problem(groups, source, "--data.angles", stream, network, annealed=network != "small")


def folder(groups: tuple[tuple[str, ...], ...], targets: tuple[str, ...], left_out: str) -> Problem:
    def stream(seed: int) -> StreamDataModule:
        return DomainFolderStream(str(TREE), domains=list(targets), image_size=16, seed=seed)

    size = ("--data.root", str(TREE), "--data.image_size", "16", "--data.num_workers", "0")
    source = ("--config", "configs/data/pacs_source.yaml", *size, "--data.val_share", left_out)
    return Problem(groups, source, "--data.source_domains", stream, "ResNet-8")


ANGLES = (("0", "15"), ("30", "45"), ("60", "75"))
UNSEEN_ANGLES = ("-45", "-30", "-15", "90", "105", "120")
PROBLEMS = {
    "digits": digits(ANGLES, UNSEEN_ANGLES, "small"),
    "digits_resnet": digits(ANGLES, UNSEEN_ANGLES, "ResNet-8"),
    "folder": folder(GROUPS, UNSEEN, left_out="0.4"),
}
NEAR = ((("0",), ("15",), ("30",)), ("45", "60", "75"))
CHOICES = {
    "digits": (digits(*NEAR, "small"),),
    "digits_resnet": (digits((("30",), ("37.5",), ("45",)), ("0", "15", "60", "75"), "ResNet-8"),),
    "folder": tuple(
        folder(tuple((name,) for other in GROUPS if other != group for name in other), group, left_out="0.1")
        for group in (GROUPS[0], GROUPS[2])
    ),
}
"""The same with training domains alone: some of them to train on, the others left out to choose on."""
ANGLE_STEPS = ("0.001", "0.003", "0.01")
STEPS = {"digits": ANGLE_STEPS, "digits_resnet": ANGLE_STEPS, "folder": ("0.003", "0.01", "0.03")}
"""Step sizes of adaptation, for both students."""
ANGLE_TRAININGS = (("0.001", "0.00003"), ("0.003", "0.00003"), ("0.01", "0.00003"))
TRAININGS = {
    "digits": ANGLE_TRAININGS,
    "digits_resnet": (("0.003", "0.00003"), ("0.01", "0.00003"), ("0.03", "0.00003")),
    "folder": (("0.01", "0.0001"), ("0.03", "0.0001")),
}
"""Step size and learning rate of the student in meta-training."""
