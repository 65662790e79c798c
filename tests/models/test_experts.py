"""Networks of several experts keep one contract."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import (
    CifarResNet,
    CosineHead,
    Experts,
    MultiExpert,
    MultiExpertCifarResNet,
    MultiExpertTimm,
    TimmClassifier,
)
from tta.errors import InputError

VIT = {"img_size": 32, "patch_size": 8}
NETWORKS: dict[str, Callable[[], MultiExpert]] = {
    "ensemble": lambda: Experts([CifarResNet(8), CifarResNet(8), CifarResNet(8)]),
    "cifar": lambda: MultiExpertCifarResNet(8, 10),
    "cifar-linear-group": lambda: MultiExpertCifarResNet(8, 10, head="linear", norm="group"),
    "timm-resnet": lambda: MultiExpertTimm("test_resnet", 10),
    "timm-vit": lambda: MultiExpertTimm("test_vit", 10, arguments=VIT),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_expert_and_mean_logits(name: str) -> None:
    model, x = NETWORKS[name]().eval(), torch.rand(2, 3, 32, 32)
    each = model.expert_logits(x)
    assert model.num_experts == 3
    assert each.shape == (2, 3, 10)
    assert torch.equal(model(x, per_expert=True), each)
    assert torch.allclose(model(x), each.mean(dim=1))
    assert not torch.allclose(each[:, 0], each[:, 1])


@pytest.mark.parametrize("name", NETWORKS)
def test_expert_logits_go_through_the_module_call(name: str) -> None:
    """What a model costs is counted there."""
    model, calls = NETWORKS[name]().eval(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    model.expert_logits(torch.rand(1, 3, 32, 32))
    assert calls == [1]


def test_cosine_head_is_a_scaled_cosine() -> None:
    head = CosineHead(4, 3, scale=30.0)
    assert torch.allclose(head.weight.norm(dim=1), torch.ones(3))
    features = torch.randn(5, 4)
    with torch.no_grad():
        head.weight[1] *= 7
    expected = 30 * F.cosine_similarity(features[:, None], head.weight[None], dim=2)
    assert torch.allclose(head(features), expected, atol=1e-5)
    assert torch.allclose(head(9 * features), head(features), atol=1e-4)
    assert [name for name, _ in head.named_parameters()] == ["weight"]
    with pytest.raises(InputError, match="scale=0"):
        CosineHead(4, 3, scale=0)


def test_shapes_of_the_cifar_network_are_the_published_ones() -> None:
    model = MultiExpertCifarResNet(32, 100)
    shapes = {}
    for name, module in model.named_modules():
        if name.endswith(("layer1", "layer2", "layer3", "flatten")):
            module.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape)}))
    model.eval()(torch.rand(1, 3, 32, 32))
    assert shapes["layer1"] == (1, 16, 32, 32)
    assert shapes["experts.2.layer2"] == (1, 24, 16, 16)
    assert shapes["experts.2.layer3"] == (1, 48, 8, 8)
    assert shapes["experts.0.flatten"] == (1, 48)
    assert [len(model.layer1), len(model.experts[0].layer2), len(model.experts[0].layer3)] == [5, 5, 5]
    wide = MultiExpertCifarResNet(8, 10, reduce_dimension=False)
    assert wide.experts[0].head.weight.shape == (10, 64)


def test_experts_of_the_cifar_network_share_only_the_first_stage() -> None:
    model, x = MultiExpertCifarResNet(8, 10).eval(), torch.rand(2, 3, 16, 16)
    before = model.expert_logits(x)
    nn.init.zeros_(model.experts[1].layer2[0].conv1.weight)
    after = model.expert_logits(x)
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.allclose(before[:, 1], after[:, 1])
    nn.init.zeros_(model.conv1.weight)
    assert not torch.allclose(model.expert_logits(x)[:, 0], after[:, 0])


@pytest.mark.parametrize(("name", "arguments"), [("test_resnet", None), ("test_vit", VIT)])
def test_one_timm_expert_is_the_network_itself(name: str, arguments: dict[str, int] | None) -> None:
    torch.manual_seed(0)
    whole = TimmClassifier(name, 10, arguments=arguments).eval()
    for expert_blocks in (1, 2):
        torch.manual_seed(0)
        split = MultiExpertTimm(name, 10, 1, expert_blocks, head="linear", arguments=arguments).eval()
        x = torch.rand(2, 3, 32, 32)
        assert torch.equal(split(x), whole(x))
        assert sum(p.numel() for p in split.parameters()) == sum(p.numel() for p in whole.parameters())


def test_more_expert_blocks_share_less() -> None:
    def shared(expert_blocks: int) -> int:
        return sum(p.numel() for p in MultiExpertTimm("test_vit", 10, 2, expert_blocks).shared.parameters())

    assert shared(1) > shared(2) > shared(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Experts([]), "experts: the list is empty"),
        (lambda: MultiExpertCifarResNet(9), "depth=9"),
        (lambda: MultiExpertCifarResNet(8, num_experts=0), "num_experts=0"),
        (lambda: MultiExpertCifarResNet(8, head="mlp"), "head='mlp': choose cosine or linear"),
        (lambda: MultiExpertCifarResNet(8, norm="group", groups=16), "groups=16 does not divide 24"),
        (lambda: MultiExpertTimm("test_vit", head="mlp"), "head='mlp': choose cosine or linear"),
        (lambda: MultiExpertTimm("test_resnet", expert_blocks=5), "expert_blocks=5: the network has 4 stages"),
        (lambda: MultiExpertTimm("test_vit", expert_blocks=0), "expert_blocks=0: the network has"),
        (lambda: MultiExpertTimm("test_convnext"), "a ConvNeXt cannot be split"),
        (lambda: MultiExpertTimm("test_resnot"), "unknown timm model"),
    ],
)
def test_what_cannot_be_built_is_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
