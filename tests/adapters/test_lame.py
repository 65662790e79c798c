"""LAME: what is returned, what happens at the edges. The fixed point itself is tested with the pure functions."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.adapters import LAME
from tta.functional import knn_affinity, laplacian_adjusted, rbf_affinity


@pytest.fixture
def toy() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def assignments(model: nn.Module, x: Tensor, affinity: Tensor) -> Tensor:
    with torch.no_grad():
        return laplacian_adjusted(model(x).softmax(dim=1), affinity).exp()


@pytest.mark.parametrize("arguments", [{}, {"affinity": "knn", "neighbours": 3}], ids=["rbf", "knn"])
def test_softmax_of_the_logits_is_the_fixed_point_on_the_features_of_the_head(toy, arguments):
    x = 2 * torch.randn(12, 5)
    with torch.no_grad():
        features = toy[:2](x)
    affinity = knn_affinity(features, 3) if arguments else rbf_affinity(features, 5)
    expected = assignments(toy, x, affinity)
    source = copy.deepcopy(toy)(x).detach()
    logits = tta.online(toy, "lame", **arguments)(x)
    torch.testing.assert_close(logits.softmax(dim=1), expected)
    torch.testing.assert_close(logits.exp(), expected)
    assert (expected - source.softmax(dim=1)).abs().max() > 0.05


def test_symmetric_averages_with_the_transpose(toy):
    x = 2 * torch.randn(12, 5)
    with torch.no_grad():
        affinity = knn_affinity(toy[:2](x), 2)
    expected = assignments(toy, x, (affinity + affinity.T) / 2)
    logits = tta.online(toy, "lame", affinity="knn", neighbours=2, symmetric=True)(x)
    torch.testing.assert_close(logits.softmax(dim=1), expected)


def test_uncertain_samples_follow_certain_neighbours():
    """Two groups in feature space; one sample of each is predicted wrongly, by little."""
    head = nn.Linear(2, 2, bias=False)
    model = nn.Sequential(nn.Flatten(), head)
    nn.init.eye_(head.weight)
    x = torch.tensor([[5.0, 1.0]] * 4 + [[1.0, 5.0]] * 4)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    wrong = torch.tensor([[0.9, 1.0]])  # nearer, by angle, to the upper half than to the lower only by a hair
    logits = tta.online(model, "lame", affinity="linear")(torch.cat([x[:4], x[:4], wrong, x[4:6]]))
    assert model(wrong).argmax() == 1
    assert logits[8].argmax() == 0
    assert logits[:8].argmax(dim=1).eq(0).all()


def test_nothing_is_carried_from_batch_to_batch(toy):
    x, y = torch.randn(2, 6, 5)
    online, fresh = tta.online(copy.deepcopy(toy), "lame"), tta.online(toy, "lame")
    online(x)
    assert torch.equal(online(y), fresh(y))
    assert online.adapter.state_dict() == {}


@pytest.mark.parametrize("affinity", ["rbf", "knn"])
def test_a_batch_of_one_is_the_source_prediction(toy, affinity):
    x = torch.randn(1, 5)
    expected = toy(x).log_softmax(dim=1).detach()
    torch.testing.assert_close(tta.online(toy, "lame", affinity=affinity)(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("affinity", ["rbf", "knn", "linear"])
def test_identical_samples_are_finite_and_keep_the_class_of_the_source(toy, affinity):
    x = torch.randn(1, 5).repeat(7, 1)
    source = toy(x[:1]).detach()
    logits = tta.online(toy, "lame", affinity=affinity)(x)
    assert torch.isfinite(logits).all()
    assert logits.argmax(dim=1).eq(source.argmax()).all()
    if affinity == "rbf":
        torch.testing.assert_close(logits.softmax(dim=1), source.softmax(dim=1).expand(7, 3))


def test_constant_logits_are_the_logarithm_of_equal_shares(toy):
    nn.init.zeros_(toy[2].weight)
    nn.init.zeros_(toy[2].bias)
    logits = tta.online(toy, "lame")(torch.randn(6, 5))
    torch.testing.assert_close(logits, torch.full((6, 3), -math.log(3)))


def test_a_sample_that_overflows_inside_the_network_is_nobodys_neighbour(toy):
    class Overflowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = toy

        def forward(self, x: Tensor) -> Tensor:
            return self.body[2](self.body[:2](x) + x.clamp(min=1e6).sub(1e6).pow(8).sum(dim=1, keepdim=True))

    model = Overflowing()
    x = torch.randn(6, 5)
    x[2] = 1e9  # its eighth power is infinite
    others = [0, 1, 3, 4, 5]
    toy_logits = tta.online(copy.deepcopy(toy), "lame", neighbours=3)(x[others])
    online = tta.online(model, "lame", neighbours=3)
    logits = online(x)
    assert not torch.isfinite(logits[2]).all()
    torch.testing.assert_close(logits[others], toy_logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"affinity": "cosine"}, "affinity='cosine': choose from rbf, knn, linear"),
        ({"neighbours": 1}, "neighbours=1: need neighbours >= 2 with affinity rbf, which counts the sample itself"),
        ({"affinity": "knn", "neighbours": 0}, "neighbours=0: need neighbours >= 1 with affinity knn$"),
    ],
)
def test_values_out_of_range_are_refused(arguments, message):
    with pytest.raises(tta.InputError, match=message):
        LAME(**arguments)
