"""timm networks whose last stages or blocks exist once per expert."""

import copy
from typing import Any, Literal

from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from models.cosine_head import CosineHead
from models.experts import MultiExpert, check_num_experts
from models.timm_classifier import TimmClassifier
from tta.errors import InputError

STEM = ("conv1", "bn1", "act1", "maxpool")
STAGES = ("layer1", "layer2", "layer3", "layer4")


class MultiExpertTimm(MultiExpert):
    """A timm ResNet, ResNeXt or vision transformer with experts, its input normalisation inside.

    Of a ResNet the experts have the last ``expert_blocks`` of the four stages and the head, of a vision transformer
    the last ``expert_blocks`` blocks, the final normalisation and the head; everything before is shared.

    Every expert is initialised on its own. With ``pretrained`` all start from the same weights, except for a new head.

    Args:
        name: A name of ``timm.list_models()`` of the ResNet or VisionTransformer family.
        num_classes: Size of the classifier's output.
        num_experts: Number of experts, ``E``.
        expert_blocks: Stages (ResNet, at most 4) or blocks (vision transformer) of each expert, at least 1.
        head: ``cosine`` (as in all released configurations) or ``linear`` (timm's own).
        scale: Scale of cosine heads.
        pretrained: Load timm's weights from its hub, at run time.
        arguments: Further keyword arguments of ``timm.create_model``, such as ``img_size``.

    Raises:
        InputError: For an unknown name, another family, too many expert blocks, or if pretrained weights cannot be had.

    References:
        Self-Supervised Aggregation of Diverse Experts (SADE), NeurIPS 2022, https://arxiv.org/abs/2107.09249, which
        shares a ResNet up to the second stage. Its ImageNet networks also have three quarters of the usual channels in
        the experts' stages; here the stages keep timm's width, so that timm's weights fit. The paper has no vision
        transformers.
    """

    def __init__(
        self,
        name: str,
        num_classes: int = 1000,
        num_experts: int = 3,
        expert_blocks: int = 2,
        head: Literal["cosine", "linear"] = "cosine",
        scale: float = 30.0,
        pretrained: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if head not in ("cosine", "linear"):
            raise InputError(f"head={head!r}: choose cosine or linear")
        self.num_experts = check_num_experts(num_experts)
        networks = []
        for _ in range(num_experts):
            classifier = TimmClassifier(name, num_classes, pretrained, arguments=arguments)
            if head == "cosine":
                _use_cosine_head(classifier.network, num_classes, scale)
            networks.append(classifier.network)
        self.normalize = classifier.normalize
        branches = [_split(network, expert_blocks) for network in networks]
        self.shared = branches[0][0]
        self.experts = nn.ModuleList(expert for _, expert in branches)

    def forward_experts(self, x: Tensor) -> list[Tensor]:
        """Logits ``(B, num_classes)`` of each expert."""
        shared = self.shared(self.normalize(x))
        return [expert(shared) for expert in self.experts]


class ResNetTrunk(nn.Module):
    """The stem and the first stages of a timm ResNet: images to a map ``(B, D, H, W)``."""

    def __init__(self, network: ResNet, stages: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(getattr(network, name) for name in (*STEM, *STAGES[:stages])))

    def forward(self, x: Tensor) -> Tensor:
        """The shared map."""
        shared: Tensor = self.layers(x)
        return shared


class ResNetExpert(nn.Module):
    """The last stages of a timm ResNet, its pooling and its head: a map to logits."""

    def __init__(self, network: ResNet, stages: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(getattr(network, name) for name in STAGES[stages:]))
        for name in (*STEM, *STAGES):
            setattr(network, name, nn.Identity())
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(B, C)``."""
        logits: Tensor = self.network.forward_head(self.layers(x))
        return logits


class TransformerTrunk(nn.Module):
    """A timm vision transformer without its last blocks, final normalisation and head: images to tokens."""

    def __init__(self, network: VisionTransformer, blocks: int) -> None:
        super().__init__()
        network.blocks = network.blocks[:blocks]
        for name in ("norm", "fc_norm", "head_drop", "head"):
            setattr(network, name, nn.Identity())
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """The shared tokens, shape ``(B, N, D)``."""
        tokens: Tensor = self.network.forward_features(x)
        return tokens


class TransformerExpert(nn.Module):
    """The last blocks of a timm vision transformer, its final normalisation and its head: tokens to logits."""

    def __init__(self, network: VisionTransformer, blocks: int) -> None:
        super().__init__()
        self.blocks = network.blocks[blocks:]
        for name in ("patch_embed", "norm_pre", "patch_drop", "blocks"):
            setattr(network, name, nn.Identity())
        for name in ("pos_embed", "cls_token", "reg_token"):
            setattr(network, name, None)
        self.network = network

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits, shape ``(B, C)``."""
        logits: Tensor = self.network.forward_head(self.network.norm(self.blocks(tokens)))
        return logits


def _use_cosine_head(network: nn.Module, num_classes: int, scale: float) -> None:
    name = network.pretrained_cfg["classifier"]  # type: ignore[index]
    head = network.get_submodule(str(name))
    if isinstance(head, nn.Linear):
        network.set_submodule(str(name), CosineHead(head.in_features, num_classes, scale))


def _split(network: nn.Module, expert_blocks: int) -> tuple[nn.Module, nn.Module]:
    """What experts share, and what each has of its own."""
    if isinstance(network, ResNet):
        shared = len(STAGES) - _checked(expert_blocks, len(STAGES), "stages")
        return ResNetTrunk(network, shared), ResNetExpert(network, shared)
    if isinstance(network, VisionTransformer):
        shared = len(network.blocks) - _checked(expert_blocks, len(network.blocks), "blocks")
        return TransformerTrunk(copy.deepcopy(network), shared), TransformerExpert(network, shared)
    raise InputError(
        f"a {type(network).__name__} cannot be split: experts are made of timm's ResNet and VisionTransformer "
        "families; use models.Experts for independent networks of any kind"
    )


def _checked(expert_blocks: int, available: int, what: str) -> int:
    if not 1 <= expert_blocks <= available:
        raise InputError(f"expert_blocks={expert_blocks}: the network has {available} {what}; give 1 to {available}")
    return expert_blocks
