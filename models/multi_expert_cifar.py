"""The CIFAR ResNets of SADE: experts that share the stem and the first stage."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from models.cifar_resnet import IMAGENET_MEAN, IMAGENET_STD, Norm, blocks_per_stage, norm_maker, stage
from models.cosine_head import CosineHead
from models.experts import MultiExpert, check_num_experts
from models.normalize import Normalize
from tta.errors import InputError


class MultiExpertCifarResNet(MultiExpert):
    """A ResNet-20/32/... for 32x32 images with a second stage, a third stage and a head for each expert.

    Shared: ``conv1`` and ``layer1``, 16 channels. Of each expert: stages of 24 and 48 channels (32 and 64 without
    ``reduce_dimension``), global average pooling and the head. Shortcuts are option A: subsampling, and half of the
    new channels as zeros on each side. Weights of convolutions and linear heads start Kaiming normal.

    Args:
        depth: ``6 n + 2`` layers, counted along one expert.
        num_classes: Size of the classifier's output.
        num_experts: Number of experts, ``E``.
        head: ``cosine`` (as in all released configurations) or ``linear``.
        scale: Scale of cosine heads.
        reduce_dimension: Make the experts' stages narrower, as published for CIFAR-100.
        norm: ``batch``, or ``group`` with ``groups`` groups.
        groups: Groups of ``group`` normalisation; must divide 16 and, with ``reduce_dimension``, 24.
        mean: Normalisation mean per channel.
        std: Normalisation standard deviation per channel.

    Raises:
        InputError: For a depth that is not ``6 n + 2``, another normalisation or head, or groups that do not divide
            the channels.

    References:
        Self-Supervised Aggregation of Diverse Experts (SADE), NeurIPS 2022, https://arxiv.org/abs/2107.09249.
    """

    def __init__(
        self,
        depth: int = 32,
        num_classes: int = 100,
        num_experts: int = 3,
        head: Literal["cosine", "linear"] = "cosine",
        scale: float = 30.0,
        reduce_dimension: bool = True,
        norm: Literal["batch", "group"] = "batch",
        groups: int = 8,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        blocks = blocks_per_stage(depth)
        make = norm_maker(norm, groups)
        if head not in ("cosine", "linear"):
            raise InputError(f"head={head!r}: choose cosine or linear")
        if norm == "group" and reduce_dimension and 24 % groups:
            raise InputError(f"groups={groups} does not divide 24 channels: use 8, or reduce_dimension=false")
        self.num_experts = check_num_experts(num_experts)
        widths = (24, 48) if reduce_dimension else (32, 64)
        self.normalize = Normalize(mean, std)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = make(16)
        self.layer1 = stage(16, 16, 1, blocks, make)
        self.experts = nn.ModuleList(
            _branch(widths, blocks, make, _head(head, widths[1], num_classes, scale)) for _ in range(num_experts)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward_experts(self, x: Tensor) -> list[Tensor]:
        """Logits ``(B, num_classes)`` of each expert."""
        shared = self.layer1(F.relu(self.bn1(self.conv1(self.normalize(x)))))
        return [expert(shared) for expert in self.experts]


def _head(kind: str, in_features: int, num_classes: int, scale: float) -> nn.Module:
    return CosineHead(in_features, num_classes, scale) if kind == "cosine" else nn.Linear(in_features, num_classes)


def _branch(widths: tuple[int, int], blocks: int, make: Norm, head: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            layer2=stage(16, widths[0], 2, blocks, make),
            layer3=stage(widths[0], widths[1], 2, blocks, make),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            head=head,
        )
    )
