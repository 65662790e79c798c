"""The small convolutional network of the first table."""

from torch import Tensor, nn


class SmallNetwork(nn.Sequential):
    """Four convolutions with BatchNorm, 64 features, ten classes."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((3, 16, 1), (16, 32, 2), (32, 64, 2), (64, 64, 1)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, 10)``."""
        logits: Tensor = super().forward(x)
        return logits
