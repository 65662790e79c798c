"""The CIFAR ResNets of He et al.: three stages of basic blocks on 32x32 images."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from models.normalize import Normalize
from tta.errors import InputError

Norm = Callable[[int], nn.Module]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with an option-A shortcut: subsampling and zero channels, no parameters.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the first convolution and of the shortcut.
        norm: Maker of a normalisation layer from a channel count.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = norm(channels)
        self.stride = stride
        self.padding = (channels - in_channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Activations ``(B, channels, H / stride, W / stride)``."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(out + shortcut)


class CifarResNet(nn.Module):
    """ResNet-20/32/44/56/110 for 32x32 images, with input normalisation inside.

    Keys of the state dict are ``conv1``, ``bn1``, ``layer1.0.conv1`` ... ``linear``, whatever the normalisation.

    Args:
        depth: ``6 n + 2`` layers.
        num_classes: Size of the classifier's output.
        norm: ``batch``, or ``group`` with ``groups`` groups.
        groups: Groups of ``group`` normalisation; must divide 16.
        mean: Normalisation mean per channel.
        std: Normalisation standard deviation per channel.

    Raises:
        InputError: For a depth that is not ``6 n + 2``, another normalisation, or groups that do not divide 16.

    References:
        Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2, https://arxiv.org/abs/1512.03385.
    """

    def __init__(
        self,
        depth: int = 20,
        num_classes: int = 10,
        norm: Literal["batch", "group"] = "batch",
        groups: int = 8,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        blocks = blocks_per_stage(depth)
        make = norm_maker(norm, groups)
        self.normalize = Normalize(mean, std)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = make(16)
        self.layer1 = stage(16, 16, 1, blocks, make)
        self.layer2 = stage(16, 32, 2, blocks, make)
        self.layer3 = stage(32, 64, 2, blocks, make)
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(B, num_classes)``, of images ``(B, 3, H, W)`` in ``[0, 1]``."""
        out = F.relu(self.bn1(self.conv1(self.normalize(x))))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits


def blocks_per_stage(depth: int) -> int:
    """Blocks of each of the three stages of a CIFAR ResNet.

    Raises:
        InputError: If the depth is not ``6 n + 2``.
    """
    if depth < 8 or (depth - 2) % 6:
        raise InputError(f"depth={depth}: a CIFAR ResNet has 6 n + 2 layers, such as 20, 32, 44, 56 or 110")
    return (depth - 2) // 6


def norm_maker(norm: str, groups: int) -> Norm:
    """Maker of a normalisation layer from a channel count.

    Args:
        norm: ``batch`` or ``group``.
        groups: Groups of ``group`` normalisation; must divide 16.

    Raises:
        InputError: For another normalisation, or groups that do not divide 16.
    """
    if norm not in ("batch", "group") or groups < 1 or 16 % groups:
        raise InputError(f"norm={norm!r}, groups={groups}: norm is batch or group, and groups divides 16")
    return nn.BatchNorm2d if norm == "batch" else lambda channels: nn.GroupNorm(groups, channels)


def stage(in_channels: int, channels: int, stride: int, blocks: int, norm: Norm) -> nn.Sequential:
    """Basic blocks in a row, the first with a stride."""
    first = BasicBlock(in_channels, channels, stride, norm)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1, norm) for _ in range(blocks - 1)))
