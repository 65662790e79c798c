import copy

import pytest
import torch
from torch import Tensor, nn

from tests.functional.batch_norms import LAYERS
from tta.functional import batch_statistics, batch_statistics_only, mixed_batch_statistics

every_layer = pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5), (6, 3, 4, 4), (4, 3, 2, 3, 3)])
def test_statistics_per_channel(shape):
    x = torch.randn(shape) * 3 + 1
    mean, variance = batch_statistics(x)
    channels = x.transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean, channels.mean(1))
    torch.testing.assert_close(variance, channels.var(1, unbiased=True))


def test_single_value_per_channel_has_variance_zero_and_half_precision_gives_float32():
    mean, variance = batch_statistics(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16))
    assert mean.tolist() == [1.0, 2.0, 3.0]
    assert variance.tolist() == [0.0, 0.0, 0.0]
    assert mean.dtype == variance.dtype == torch.float32


@every_layer
def test_batch_alone_equals_train_mode_and_keeps_buffers_and_keys(make, shape):
    model = nn.Sequential(make()).eval()
    reference = copy.deepcopy(model).train()
    keys = list(model.state_dict())
    for _ in range(2):
        batch_statistics_only(model)
    x = torch.randn(shape) * 3 + 1
    assert torch.equal(model(x), reference(x))
    assert list(model.state_dict()) == keys
    assert torch.equal(model[0].running_mean, torch.zeros(3))
    assert int(model[0].num_batches_tracked) == 0
    model.eval()
    assert torch.equal(model(x), make().eval()(x))


@every_layer
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixture(make, shape, share):
    layer = make().eval()
    layer.running_mean.uniform_(-1, 1)
    layer.running_var.uniform_(0.5, 2)
    source = layer.running_mean.clone(), layer.running_var.clone()
    x = torch.randn(shape) * 3 + 1
    mean, variance = batch_statistics(x)
    reference = copy.deepcopy(layer)
    reference.running_mean = (1 - share) * source[0] + share * mean
    reference.running_var = (1 - share) * source[1] + share * variance
    with mixed_batch_statistics(layer, share, accumulate=False):
        torch.testing.assert_close(layer(x), reference(x))
    assert torch.equal(layer.running_mean, source[0])
    assert torch.equal(layer.running_var, source[1])
    with mixed_batch_statistics(layer, share, accumulate=True):
        layer(x)
    torch.testing.assert_close(layer.running_mean, reference.running_mean)
    torch.testing.assert_close(layer.running_var, reference.running_var)


def test_outside_the_context_nothing_is_mixed_any_more():
    layer = nn.BatchNorm2d(3).eval()
    x = torch.randn(6, 3, 4, 4) + 2
    before = layer(x)
    with mixed_batch_statistics(layer, 0.5, accumulate=False):
        assert not torch.equal(layer(x), before)
    assert torch.equal(layer(x), before)
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks


def test_buffers_stay_the_same_tensors():
    """A checkpoint or a wrapper that holds the buffer must see the moving average."""
    layer = nn.BatchNorm2d(3).eval()
    held = layer.running_mean
    with mixed_batch_statistics(layer, 0.5, accumulate=True):
        layer(torch.randn(6, 3, 4, 4) + 2)
    assert layer.running_mean is held
    assert held.abs().max() > 0.5


class Fails(nn.BatchNorm2d):
    def _check_input_dim(self, x: Tensor) -> None:
        raise RuntimeError("no memory left")


@pytest.mark.parametrize("accumulate", [False, True])
def test_layer_that_raises_gets_its_buffers_back(accumulate):
    layer = Fails(3).eval()
    mean, variance = layer.running_mean, layer.running_var
    with pytest.raises(RuntimeError, match="no memory left"), mixed_batch_statistics(layer, 0.5, accumulate):
        layer(torch.randn(6, 3, 4, 4) + 2)
    assert layer.running_mean is mean
    assert layer.running_var is variance
    assert torch.equal(mean, torch.zeros(3))
    assert torch.equal(variance, torch.ones(3))
    assert not layer._forward_hooks


def test_layers_of_a_model_that_raises_later_have_their_own_buffers():
    class Later(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no memory left")

    model = nn.Sequential(nn.BatchNorm2d(3), Later()).eval()
    with pytest.raises(RuntimeError, match="no memory left"), mixed_batch_statistics(model, 0.5, accumulate=False):
        model(torch.randn(6, 3, 4, 4) + 2)
    assert torch.equal(model[0].running_mean, torch.zeros(3))
    assert not model[0]._forward_hooks


def test_mixture_that_is_not_finite_is_never_kept():
    layer = nn.BatchNorm2d(3).eval()
    x = torch.randn(6, 3, 4, 4)
    x[0, 1, 0, 0] = torch.inf
    with mixed_batch_statistics(layer, 0.5, accumulate=True):
        layer(x)
    assert torch.equal(layer.running_mean, torch.zeros(3))
    assert torch.equal(layer.running_var, torch.ones(3))


def test_layers_without_running_statistics_are_left_alone():
    layer = nn.BatchNorm2d(3, track_running_stats=False).eval()
    x = torch.randn(6, 3, 4, 4) + 2
    before = layer(x)
    with mixed_batch_statistics(layer, 0.5, accumulate=True):
        assert torch.equal(layer(x), before)


def test_shared_layer_is_mixed_at_each_use():
    layer = nn.BatchNorm2d(3).eval()
    x = torch.randn(6, 3, 4, 4) + 2
    with mixed_batch_statistics(layer, 0.5, accumulate=False):
        once = layer(x)
        twice = nn.Sequential(layer, layer)(x)
        assert torch.equal(twice, layer(once))
    assert torch.equal(layer.running_mean, torch.zeros(3))
