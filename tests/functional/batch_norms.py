"""Layers of batch normalisation, for tests of what replaces their statistics."""

from timm.layers import BatchNormAct2d
from torch import nn

LAYERS = {
    "1d": (lambda: nn.BatchNorm1d(3), (6, 3)),
    "1d-sequence": (lambda: nn.BatchNorm1d(3), (6, 3, 5)),
    "2d": (lambda: nn.BatchNorm2d(3), (6, 3, 4, 4)),
    "3d": (lambda: nn.BatchNorm3d(3), (4, 3, 2, 3, 3)),
    "fused": (lambda: BatchNormAct2d(3), (6, 3, 4, 4)),
}
"""By name: a maker of a layer of three channels, and the shape of an input."""
