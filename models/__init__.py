"""Networks that take images in [0, 1] and return logits."""

from models.cifar_resnet import CifarResNet
from models.class_subset import ClassSubset
from models.normalize import Normalize
from models.timm_classifier import TimmClassifier

__all__ = ("CifarResNet", "ClassSubset", "Normalize", "TimmClassifier")
