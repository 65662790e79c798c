import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.func import functional_call

from tests.functional.batch_norms import LAYERS
from tta.functional.robust_normalization import moved_statistics, robust_batch_statistics


def test_moved_statistics_by_hand():
    """Batch mean 2 and biased variance 1, from running 0 and 1: a tenth and nine tenths."""
    inputs = torch.tensor([[1.0], [3.0]])
    mean, variance = moved_statistics(inputs, torch.zeros(1), torch.tensor([2.0]), 0.1)
    torch.testing.assert_close(mean, torch.tensor([0.2]))
    torch.testing.assert_close(variance, torch.tensor([0.9 * 2.0 + 0.1 * 1.0]))


@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)
def test_output_statistics_and_gradients_against_the_plain_formula(make, shape):
    layer = make().eval()
    x = (torch.randn(shape) * 2 + 1).requires_grad_()
    plain_x = x.detach().clone().requires_grad_()
    nn.init.uniform_(layer.weight)
    keys = list(layer.state_dict())
    axes = [axis for axis in range(len(shape)) if axis != 1]
    view = (1, -1, *[1] * (len(shape) - 2))
    mean = 0.7 * layer.running_mean + 0.3 * plain_x.mean(axes)
    variance = 0.7 * layer.running_var + 0.3 * plain_x.var(axes, unbiased=False)
    expected = (plain_x - mean.view(view)) / (variance.view(view) + layer.eps).sqrt()
    expected = expected * layer.weight.view(view) + layer.bias.view(view)
    if isinstance(layer, BatchNormAct2d):
        expected = expected.relu()
    with robust_batch_statistics(layer, 0.3):
        got = layer(x)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(layer.running_mean, mean.detach())
    torch.testing.assert_close(layer.running_var, variance.detach())
    weights = torch.randn(shape)
    gradients = [
        torch.autograd.grad((out * weights).sum(), (inputs, layer.weight))
        for out, inputs in ((got, x), (expected, plain_x))
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert list(layer.state_dict()) == keys
    assert int(layer.num_batches_tracked) == 0
    with torch.no_grad():
        assert not torch.equal(layer(x), got), "outside the context nothing is mixed in"


def test_a_model_run_with_other_buffers_moves_those():
    model = nn.Sequential(nn.BatchNorm1d(3)).eval()
    own = copy.deepcopy(model.state_dict())
    others = {"0.running_mean": torch.ones(3), "0.running_var": torch.full((3,), 4.0)}
    kept = dict(others)
    x = torch.randn(5, 3)
    with robust_batch_statistics(model, 0.5):
        functional_call(model, others, (x,))
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(kept["0.running_mean"], 0.5 + 0.5 * x.mean(0))
    torch.testing.assert_close(kept["0.running_var"], 2.0 + 0.5 * x.var(0, unbiased=False))


def test_statistics_that_are_not_finite_are_not_kept_and_errors_leave_the_layer_as_it_was():
    model = nn.Sequential(nn.Identity(), nn.BatchNorm1d(3)).eval()
    before = copy.deepcopy(model.state_dict())
    model[0].register_forward_hook(lambda module, args, output: output * float("nan"))
    with robust_batch_statistics(model, 0.5):
        assert model(torch.ones(2, 3)).isnan().all()
        with pytest.raises(RuntimeError):
            model(torch.ones(2, 4))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_layers_without_running_statistics_are_left_out_and_one_value_is_enough():
    untracked = nn.BatchNorm1d(3, track_running_stats=False).eval()
    x = torch.randn(4, 3)
    with robust_batch_statistics(untracked, 0.5):
        torch.testing.assert_close(untracked(x), (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt())
    tracked = nn.BatchNorm1d(3).eval()
    with robust_batch_statistics(tracked, 0.5):
        assert torch.isfinite(tracked(x[:1])).all()
    torch.testing.assert_close(tracked.running_var, torch.full((3,), 0.5))
