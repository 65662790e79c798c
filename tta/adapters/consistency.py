"""Parts of ITTA: the learnable consistency loss, affine maps after blocks, a bank of styles, and their draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tta.errors import InputError
from tta.functional.style import mix_style, style


def affine_chain(x: Tensor, weights: Tensor, biases: Tensor, relu: bool) -> Tensor:
    """Element-wise affine maps in a row: ``w * x + b``, and again.

    Args:
        x: Shape ``(B, ...)``.
        weights: Shape ``(depth, ...)``, each of which broadcasts to a sample of ``x``.
        biases: The same shape.
        relu: Put a ReLU between two maps; none comes after the last.

    Returns:
        The shape of ``x``.
    """
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = weight * (F.relu(x) if relu and number else x) + bias
    return x


class LearnableConsistency(nn.Module):
    """The learnable loss of ITTA: element-wise affine maps with ReLU between, on a difference of features.

    At the start all weights are 1 and all biases 0, so that it is ``ReLU``: negative differences do not count yet.

    Args:
        features: Length ``D`` of the features.
        depth: Number of maps, at least 1; 10 as published.

    Raises:
        InputError: If a number is below 1.

    References:
        Improved Test-Time Adaptation for Domain Generalization, CVPR 2023, https://arxiv.org/abs/2304.04494.
    """

    def __init__(self, features: int, depth: int = 10) -> None:
        super().__init__()
        if features < 1 or depth < 1:
            raise InputError(f"features={features}, depth={depth}: need both >= 1")
        self.weight = nn.Parameter(torch.ones(depth, features))
        self.bias = nn.Parameter(torch.zeros(depth, features))

    def forward(self, difference: Tensor) -> Tensor:
        """Transformed difference, shape ``(B, D)`` as given."""
        return affine_chain(difference, self.weight, self.bias, relu=True)

    def loss(self, plain: Tensor, styled: Tensor) -> Tensor:
        """Mean square of the transformed difference of features ``(B, D)``, in float32: a scalar, at least 0."""
        transformed: Tensor = self(styled.float() - plain.float())
        return transformed.square().mean()


class AffineMaps(nn.Module):
    """The adaptive parameters of ITTA: element-wise affine maps, with ReLU between, after blocks of a network.

    At the start every map is the identity, exactly so where there is no ReLU or activations are not negative.

    Args:
        shapes: Shape of a map's parameters after each block, without the batch axis.
        relu: For each block, whether a ReLU stands between its maps.
        depth: Number of maps after each block, at least 1; 5 as published.
    """

    def __init__(self, shapes: Sequence[Sequence[int]], relu: Sequence[bool], depth: int = 5) -> None:
        super().__init__()
        self.relu = list(relu)
        self.weights = nn.ParameterList(torch.ones(depth, *shape) for shape in shapes)
        self.biases = nn.ParameterList(torch.zeros(depth, *shape) for shape in shapes)

    def reset(self) -> None:
        """Be the identity again, in place."""
        with torch.no_grad():
            for weight, bias in zip(self.weights, self.biases, strict=True):
                weight.fill_(1.0)
                bias.zero_()

    def forward(self, block: int, activations: Tensor) -> Tensor:
        """Activations after the maps of a block, same shape and dtype.

        Args:
            block: Position of the block.
            activations: Its output, ``(B, ...)``.
        """
        mapped = affine_chain(activations, self.weights[block], self.biases[block], self.relu[block])
        return mapped.to(activations.dtype)


class StyleBank(nn.Module):
    """Styles of source images after some blocks: the newest ones, oldest out first.

    Args:
        channels: Number of channels after each block.
        size: Most images to keep, at least 1.
    """

    seen: Tensor

    def __init__(self, channels: Sequence[int], size: int) -> None:
        super().__init__()
        if size < 1:
            raise InputError(f"bank_size={size}: need bank_size >= 1; 256 is usual")
        self.blocks = len(channels)
        for number, width in enumerate(channels):
            self.register_buffer(f"mean{number}", torch.zeros(size, width))
            self.register_buffer(f"std{number}", torch.ones(size, width))
        self.register_buffer("seen", torch.zeros(len(channels), dtype=torch.long))

    def __len__(self) -> int:
        """Number of images whose styles after every block are kept."""
        return min(int(self.seen.min()), len(self.get_buffer("mean0")))

    def add(self, block: int, activations: Tensor) -> None:
        """Keep the styles of a batch.

        Args:
            block: Position of the block.
            activations: Its output, as in :func:`tta.functional.style.style`.
        """
        means, stds = self.get_buffer(f"mean{block}"), self.get_buffer(f"std{block}")
        mean, std = (part.flatten(1)[-len(means) :] for part in style(activations))
        rows = (self.seen[block] + torch.arange(len(mean), device=means.device)) % len(means)
        means[rows], stds[rows] = mean, std
        self.seen[block] += len(mean)

    def styles(self, block: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations ``(B, C)`` of kept images after a block.

        Args:
            block: Position of the block.
            rows: Which images, int64, ``(B,)``.
        """
        return self.get_buffer(f"mean{block}")[rows], self.get_buffer(f"std{block}")[rows]


@dataclass(frozen=True)
class StyleDraw:
    """What is random about one styled pass.

    Attributes:
        block: Position, among the style blocks, of the one after which styles are mixed.
        share: Share of its own style that each sample keeps, float32, ``(B,)``.
        other: Which image lends its style to each sample, int64, ``(B,)``: a permutation of the batch, or rows of a
            bank.
    """

    block: int
    share: Tensor
    other: Tensor

    @classmethod
    def make(
        cls, seed: Sequence[int], batch: int, blocks: int, alpha: float, device: torch.device, bank: int | None = None
    ) -> "StyleDraw":
        """Draw a block, shares from Beta(alpha, alpha), and lenders.

        Args:
            seed: Non-negative numbers that alone decide the draw.
            batch: Number of samples.
            blocks: Number of style blocks; each is as likely.
            alpha: Parameter of the Beta distribution, above 0.
            device: Where the tensors are to be.
            bank: Number of images of a bank, from which lenders are drawn with replacement; otherwise they are a
                permutation of the batch.
        """
        random = np.random.default_rng(list(seed))
        block = int(random.integers(blocks))
        share = torch.from_numpy(random.beta(alpha, alpha, batch).astype(np.float32))
        other = random.permutation(batch) if bank is None else random.integers(bank, size=batch)
        return cls(block, share.to(device), torch.from_numpy(other).to(device))

    def mix(self, activations: Tensor, lent: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Activations ``(B, ...)`` with mixed styles: with lent means and deviations ``(B, C)``, or the batch's own."""
        return mix_style(activations, self.share, self.other if lent is None else lent)


def parameter_shape(activations: Sequence[int], affine: str) -> list[int]:
    """Shape of the parameters of an affine map.

    Args:
        activations: Shape of a block's output without the batch axis: ``(C, H, W)`` or ``(N, D)``.
        affine: ``full`` for one number per activation, ``channel`` for one per channel.
    """
    if affine == "full" or len(activations) == 1:
        return list(activations)
    return [activations[-1]] if len(activations) == 2 else [activations[0], 1, 1]
