import pytest
import timm
import torch
from torch import nn
from torchvision.models import resnet18

import tta
from tta.adapters import Select
from tta.adapters.select import published_layers


def names(select: Select, model: nn.Module) -> list[str]:
    return [name for name, _ in select.layers(model)]


@pytest.fixture
def mixed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
        nn.InstanceNorm2d(4),
        nn.LayerNorm(4, elementwise_affine=False),
        nn.LayerNorm(4),
        nn.RMSNorm(4),
        nn.Linear(4, 2),
    )


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (("batch_norm", "layer_norm", "group_norm"), ["1", "2", "6"]),
        (["batch_norm"], ["1"]),
        (["layer_norm"], ["6"]),
        (["group_norm"], ["2"]),
        (["instance_norm"], ["3"]),
        (["rms_norm"], ["7"]),
        (["conv"], ["0"]),
        (["linear"], ["8"]),
        (["linear", "conv"], ["0", "8"]),
    ],
)
def test_by_type_in_registration_order_without_layers_that_have_no_parameters(mixed, types, expected):
    assert names(Select(types=types), mixed) == expected


def test_exactly_the_selected_parameters_require_gradients(mixed):
    select = Select(types=["group_norm", "linear"])
    mixed[0].weight.requires_grad_(False)
    mixed[8].weight.requires_grad_(False)
    for _ in range(2):
        select.freeze_rest(mixed)
        wanted = [name for name, p in mixed.named_parameters() if p.requires_grad]
        assert wanted == ["2.weight", "2.bias", "8.weight", "8.bias"]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0.0, 1.0, range(8)),
        (0.0, 0.75, range(6)),
        (0.5, 1.0, range(4, 8)),
        (0.25, 0.5, range(2, 4)),
        (0.3, 0.7, [2, 3, 4]),
    ],
)
def test_by_depth(start, stop, expected):
    model = nn.Sequential(*(nn.LayerNorm(3) for _ in range(8)))
    assert names(Select(start=start, stop=stop), model) == [str(number) for number in expected]


def test_by_predicate_before_depth():
    model = nn.Sequential(*(nn.LayerNorm(3 + number % 2) for number in range(8)))
    odd = Select(predicate=lambda name, layer: layer.normalized_shape == (4,), stop=0.5)
    assert names(odd, model) == ["1", "3"]
    assert names(Select(predicate=lambda name, layer: name == "5"), model) == ["5"]


def test_layers_inside_a_selected_layer_stay_frozen():
    """Only a layer's own parameters adapt."""

    class Norm(nn.LayerNorm):
        def __init__(self) -> None:
            super().__init__(3)
            self.inner = nn.Linear(3, 3)

    model = nn.Sequential(Norm())
    Select().freeze_rest(model)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["0.weight", "0.bias"]


def test_subclasses_are_found():
    resnet = timm.create_model("resnet18", num_classes=10)
    resnet_layers = Select(types=["batch_norm"]).layers(resnet)
    assert len(resnet_layers) == len(Select(types=["batch_norm"]).layers(resnet18(num_classes=10))) == 20
    densenet = timm.create_model("densenet121", num_classes=2)
    assert {type(layer).__name__ for _, layer in Select(types=["batch_norm"]).layers(densenet)} == {"BatchNormAct2d"}
    convnext = timm.create_model("test_convnext", num_classes=10)
    assert {type(layer).__name__ for _, layer in Select(types=["layer_norm"]).layers(convnext)} == {
        "LayerNorm",
        "LayerNorm2d",
    }
    sync = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(3)))
    assert names(Select(types=["batch_norm"]), sync) == ["0"]


def test_nothing_to_adapt_lists_what_the_model_has(mixed):
    with pytest.raises(tta.InputError, match=r"no layer to adapt.*the model has .*1 conv, 1 linear"):
        Select(types=["rms_norm"]).layers(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Linear(3, 3)))
    with pytest.raises(tta.InputError, match="no layer of a selectable type"):
        Select().layers(nn.ReLU())
    with pytest.raises(tta.InputError, match="1 batch_norm, 1 layer_norm, 1 group_norm, 1 instance_norm, 1 rms_norm"):
        Select(predicate=lambda name, layer: False).layers(mixed)


def test_one_layer_always_stays():
    assert names(Select(stop=0.5), nn.LayerNorm(3)) == [""]
    three = nn.Sequential(*(nn.LayerNorm(3) for _ in range(3)))
    assert names(Select(start=0.5, stop=0.6), three) == ["1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"types": ["batchnorm"]}, r"unknown layer type 'batchnorm': choose from batch_norm, .*linear"),
        ({"types": "batch_norm"}, r"types='batch_norm': give a list of layer types, such as \[batch_norm\]"),
        ({"start": 0.5, "stop": 0.5}, r"start=0.5, stop=0.5: need 0 <= start < stop <= 1"),
        ({"start": -0.1}, "need 0 <= start"),
        ({"stop": 1.1}, "stop=1.1"),
    ],
)
def test_bad_selections(arguments, message):
    with pytest.raises(tta.InputError, match=message):
        Select(**arguments)


def test_vision_transformer_of_twelve_blocks_by_both_rules():
    """ViT-B/16 has 25 LayerNorms, of which the paper adapts the 18 of blocks 0 to 8: 36 tensors."""
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224")
    wanted = {f"blocks.{block}.norm{n}.{part}" for block in range(9) for n in (1, 2) for part in ("weight", "bias")}
    for adapter in (tta.adapters.SAR(), tta.adapters.SAR(published=True)):
        adapter.prepare(model)
        assert {name for name, p in model.named_parameters() if p.requires_grad} == wanted
        assert len(adapter.trainable(model)) == 36


def test_published_rule_by_names():
    adapted = ["layer1.0.bn1", "layer3.5.bn2", "blocks.0.norm1", "blocks.8.norm2", "encoder.norm"]
    frozen = ["layer4.0.bn1", "blocks.9.norm1", "blocks.10.norm2", "blocks.11.norm1", "norm", "norm.inner"]
    assert [name for name in adapted + frozen if published_layers(name, nn.LayerNorm(1))] == adapted
