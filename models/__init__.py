"""Networks that take images in [0, 1] and return logits."""

from models.aggregator import Aggregator
from models.cifar_resnet import CifarResNet
from models.class_subset import ClassSubset
from models.cosine_head import CosineHead
from models.domain_experts import DomainExperts
from models.experts import Experts, MultiExpert
from models.iabn import InstanceAwareBatchNorm2d, with_iabn
from models.multi_expert_cifar import MultiExpertCifarResNet
from models.multi_expert_timm import MultiExpertTimm
from models.normalize import Normalize
from models.timm_classifier import TimmClassifier

__all__ = (
    "Aggregator",
    "CifarResNet",
    "ClassSubset",
    "CosineHead",
    "DomainExperts",
    "Experts",
    "InstanceAwareBatchNorm2d",
    "MultiExpert",
    "MultiExpertCifarResNet",
    "MultiExpertTimm",
    "Normalize",
    "TimmClassifier",
    "with_iabn",
)
