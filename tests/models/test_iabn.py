"""Instance-aware batch normalisation."""

import copy
import math

import pytest
import timm
import torch
from torch import Tensor, nn

from models import CifarResNet, InstanceAwareBatchNorm2d, with_iabn
from tta.errors import InputError
from tta.functional import batch_statistics_only


def layer(k: float, mean: float = 0.0, variance: float = 1.0) -> InstanceAwareBatchNorm2d:
    one = InstanceAwareBatchNorm2d(1, eps=0.0, k=k).eval()
    one.running_mean.fill_(mean)
    one.running_var.fill_(variance)
    return one


def test_two_by_two_by_hand():
    """Values 4, 6, 8, 10 have mean 7 and unbiased variance 20/3; standard errors of 4 values are 1/2 and sqrt(2/3).

    With k = 2 the mean moves from 0 to 7 - 1 = 6, the variance from 1 to 20/3 - 2 sqrt(2/3).
    """
    x = torch.tensor([[[[4.0, 6.0], [8.0, 10.0]]]])
    variance = 20 / 3 - 2 * math.sqrt(2 / 3)
    expected = (x - 6.0) / math.sqrt(variance)
    torch.testing.assert_close(layer(k=2.0)(x), expected)
    affine = layer(k=2.0)
    nn.init.constant_(affine.weight, 3.0)
    nn.init.constant_(affine.bias, -1.0)
    torch.testing.assert_close(affine(x), 3.0 * expected - 1.0)


def test_differences_below_are_shrunk_from_the_other_side():
    """Mean -7 moves to -6; a variance of 0 of an image of one value moves from 1 to 2 sqrt(2/3) - 0, here by k = 1."""
    x = -torch.tensor([[[[4.0, 6.0], [8.0, 10.0]]]])
    variance = 20 / 3 - 2 * math.sqrt(2 / 3)
    torch.testing.assert_close(layer(k=2.0)(x), (x + 6.0) / math.sqrt(variance))
    flat = torch.full((1, 1, 2, 2), 0.25)
    torch.testing.assert_close(layer(k=1.0)(flat), flat / math.sqrt(math.sqrt(2 / 3)))


def test_without_shrinkage_it_is_instance_normalisation():
    x = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    own = InstanceAwareBatchNorm2d(4, k=0.0).eval()
    variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True)
    torch.testing.assert_close(own(x), (x - mean) / (variance + 1e-5).sqrt())


@pytest.fixture
def pair() -> tuple[nn.BatchNorm2d, InstanceAwareBatchNorm2d, Tensor]:
    generator = torch.Generator().manual_seed(0)
    plain, aware = nn.BatchNorm2d(4), InstanceAwareBatchNorm2d(4, k=1e6)
    with torch.no_grad():
        plain.weight.copy_(torch.rand(4, generator=generator) + 0.5)
        plain.bias.copy_(torch.randn(4, generator=generator))
        plain.running_mean.copy_(torch.randn(4, generator=generator))
        plain.running_var.copy_(torch.rand(4, generator=generator) + 0.5)
    aware.load_state_dict(plain.state_dict())
    return plain, aware, 2.0 + 3.0 * torch.randn(3, 4, 5, 5, generator=generator)


def test_shrinkage_that_swallows_everything_is_batch_normalisation_in_eval_mode(pair):
    plain, aware, x = pair
    torch.testing.assert_close(aware.eval()(x), plain.eval()(x))


def test_in_training_it_moves_the_same_statistics_and_has_the_unbiased_variance(pair):
    plain, aware, x = pair
    unbiased = math.sqrt(1 - 1 / 75)
    expected = (plain.train()(x) - plain.bias.view(-1, 1, 1)) * unbiased + plain.bias.view(-1, 1, 1)
    torch.testing.assert_close(aware.train()(x), expected, rtol=1e-4, atol=1e-4)
    for name, value in plain.state_dict().items():
        assert torch.equal(aware.state_dict()[name], value), name


def test_statistics_of_the_batch_alone_leave_the_running_ones(pair):
    _, aware, x = pair
    before = copy.deepcopy(aware.state_dict())
    batch_statistics_only(aware)
    assert not torch.allclose(aware(x), aware.eval()(x))
    assert all(torch.equal(value, before[name]) for name, value in aware.state_dict().items())


def test_one_value_per_channel_is_batch_normalisation_or_its_error(pair):
    plain, aware, x = pair
    small = x[:, :, :1, :1]
    torch.testing.assert_close(aware.eval()(small), plain.eval()(small))
    assert torch.isfinite(aware.train()(small)).all()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        aware(small[:1])


def test_an_image_is_normalised_the_same_in_any_batch():
    aware = InstanceAwareBatchNorm2d(4).eval()
    x = 5.0 * torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(aware(x), torch.cat([aware(image) for image in x.split(1)]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "x", [torch.zeros(2, 4, 3, 3), torch.ones(1, 4, 3, 3).mul(7), torch.rand(1, 4, 3, 3).repeat(5, 1, 1, 1)]
)
@pytest.mark.parametrize("training", [False, True])
def test_images_of_one_colour_and_identical_images_are_finite_with_gradients(x, training):
    aware = InstanceAwareBatchNorm2d(4).train(training)
    x = x.clone().requires_grad_(True)
    out = aware(x)
    out.square().sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(aware.weight.grad).all()


def test_output_has_the_type_of_the_input():
    aware = InstanceAwareBatchNorm2d(4).eval()
    x = torch.randn(2, 4, 3, 3)
    assert aware(x.bfloat16()).dtype == torch.bfloat16
    assert aware.double()(x.double()).dtype == torch.float64


def test_conversion_keeps_keys_weights_modes_and_parameters():
    model = CifarResNet(8).eval()
    parameters = list(model.parameters())
    model.bn1.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert with_iabn(model, k=3.0) is model
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(layers) == 7
    assert all(isinstance(m, InstanceAwareBatchNorm2d) and m.k == 3.0 and not m.training for m in layers)
    assert not model.bn1.weight.requires_grad
    CifarResNet(8).load_state_dict(model.state_dict())
    assert with_iabn(model, k=5.0).bn1.k == 5.0


def test_conversion_changes_what_a_shifted_image_gives():
    torch.manual_seed(0)
    plain = CifarResNet(8)
    with torch.no_grad():
        for _ in range(5):
            plain(torch.rand(8, 3, 32, 32))
    aware = with_iabn(copy.deepcopy(plain)).eval()
    x = torch.rand(4, 3, 32, 32)
    same, wide = plain.eval()(x), with_iabn(copy.deepcopy(plain), k=1e6).eval()(x)
    torch.testing.assert_close(wide, same, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(aware(0.2 * x), plain(0.2 * x), atol=1e-2)


def test_k_is_in_the_words_of_the_layer():
    assert "k=3.0" in str(InstanceAwareBatchNorm2d(4, k=3.0))


@pytest.mark.parametrize("make", [lambda k: InstanceAwareBatchNorm2d(4, k=k), lambda k: with_iabn(CifarResNet(8), k)])
@pytest.mark.parametrize("k", [-1.0, math.nan])
def test_negative_widths_are_refused(make, k):
    with pytest.raises(InputError, match=r"k=(-1.0|nan): need k >= 0"):
        make(k)


def test_networks_that_cannot_be_converted_are_refused():
    with pytest.raises(InputError, match=r"CifarResNet has no nn\.BatchNorm2d"):
        with_iabn(CifarResNet(8, norm="group"))
    with pytest.raises(InputError, match=r"\w+ is a BatchNormAct2d: with_iabn converts plain nn.BatchNorm2d only"):
        with_iabn(timm.create_model("test_efficientnet", num_classes=10))
    with pytest.raises(InputError, match="1 is a BatchNorm1d"):
        with_iabn(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
