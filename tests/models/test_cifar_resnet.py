import pytest
import torch
from torch import nn

from models import CifarResNet, Normalize
from tta.errors import InputError


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("depth", [8, 20])
def test_shapes_depth_and_size(depth, norm):
    model = CifarResNet(depth=depth, num_classes=7, norm=norm).eval()
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == depth
    stages = [model.layer1, model.layer2, model.layer3]
    assert [len(stage) for stage in stages] == [(depth - 2) // 6] * 3
    out = model.layer1(torch.rand(1, 16, 32, 32))
    for stage, shape in ((model.layer2, (1, 32, 16, 16)), (model.layer3, (1, 64, 8, 8))):
        out = stage(out)
        assert out.shape == shape


def test_published_size():
    """ResNet-20 has 0.27 million parameters (table 6 of the paper)."""
    assert sum(p.numel() for p in CifarResNet(20).parameters()) == 269_722
    assert sum(p.numel() for p in CifarResNet(20, norm="group").parameters()) == 269_722


def test_keys_are_those_of_the_usual_checkpoints():
    model = CifarResNet(8)
    norm = [f"{{}}.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    expected = ["conv1.weight", *(key.format("bn1") for key in norm)]
    for stage in ("layer1.0", "layer2.0", "layer3.0"):
        for number in (1, 2):
            expected.append(f"{stage}.conv{number}.weight")
            expected += [key.format(f"{stage}.bn{number}") for key in norm]
    expected += ["linear.weight", "linear.bias"]
    assert list(model.state_dict()) == expected
    grouped = [key for key in expected if not key.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert list(CifarResNet(8, norm="group").state_dict()) == grouped


def test_kind_of_normalisation():
    batch, group = CifarResNet(8), CifarResNet(8, norm="group", groups=4)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in batch.modules()) == 7
    layers = [m for m in group.modules() if isinstance(m, nn.GroupNorm)]
    assert [(m.num_groups, m.num_channels) for m in layers] == [(4, c) for c in (16, 16, 16, 32, 32, 64, 64)]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in group.modules())


def test_normalisation_is_inside():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    inside = CifarResNet(8, mean=mean, std=std).eval()
    outside = CifarResNet(8, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    outside.load_state_dict(inside.state_dict())
    x = torch.rand(2, 3, 32, 32)
    shape = (1, 3, 1, 1)
    plain = (x - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    torch.testing.assert_close(inside(x), outside(plain))
    assert not torch.allclose(inside(x), outside(x))


def test_normalize_adds_no_key_and_moves_with_the_model():
    layer = Normalize((0.5,), (0.25,))
    assert layer(torch.full((1, 1, 2, 2), 0.75)).unique().tolist() == [1.0]
    assert not layer.state_dict()
    assert not list(layer.parameters())
    assert layer.double().mean.dtype == torch.float64


@pytest.mark.parametrize("depth", [2, 7, 9, 18, 51])
def test_depths_that_do_not_exist(depth):
    with pytest.raises(InputError, match=f"depth={depth}: a CIFAR ResNet has 6 n \\+ 2 layers"):
        CifarResNet(depth)


@pytest.mark.parametrize(
    "arguments", [{"norm": "layer"}, {"norm": "group", "groups": 3}, {"norm": "group", "groups": 0}]
)
def test_normalisations_that_do_not_exist(arguments):
    with pytest.raises(InputError, match="norm is batch or group, and groups divides 16"):
        CifarResNet(8, **arguments)
