"""The head of a classifier and the features that enter it."""

import pytest
import torch
from torch import nn

from tta.adapters.head import features_of, linear_head, logits_and_features, parallel_heads
from tta.errors import InputError


@pytest.mark.parametrize("kind", ["bn", "ln", "ln2d", "gn"])
def test_head_maps_its_features_to_the_logits(untrained, digits, kind):
    model = untrained(kind)
    head = linear_head(model)
    assert head.out_features == 10
    with features_of(head) as features:
        logits = model(digits[0][:4])
    assert features[0].shape == (4, head.in_features)
    assert torch.equal(head(features[0]), logits)


def test_features_are_on_the_graph_and_collected_within_the_context_only(untrained, digits):
    model = untrained("gn")
    head = linear_head(model)
    with features_of(head) as features:
        model(digits[0][:2])
        model(digits[0][:3])
    model(digits[0][:4])
    assert [len(f) for f in features] == [2, 3]
    features[1].sum().backward()
    assert model.conv1.weight.grad.abs().sum() > 0
    assert head.weight.grad is None


def test_head_by_name():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    assert linear_head(model) is model[1]
    assert linear_head(model, "0") is model[0]


@pytest.mark.parametrize(
    ("sizes", "count"),
    [([(5, 4), (4, 3), (4, 3)], 2), ([(4, 3), (5, 4), (4, 3)], 1), ([(5, 3), (3, 3), (3, 3)], 1), ([(4, 3)] * 3, 3)],
)
def test_heads_beside_the_head(sizes, count):
    layers = [nn.Linear(*size) for size in sizes]
    assert parallel_heads(nn.Sequential(*layers)) == layers[::-1][:count]


def test_unknown_or_missing_head_is_refused():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    with pytest.raises(InputError, match=r"head='fc': no linear layer of that name; the last ones are 0"):
        linear_head(model, "fc")
    with pytest.raises(InputError, match=r"head='1': no linear layer"):
        linear_head(model, "1")
    with pytest.raises(InputError, match="Conv2d has no linear layer that could be its head"):
        linear_head(nn.Conv2d(1, 1, 1))


@pytest.mark.parametrize("kind", ["bn", "ln", "gn"])
def test_logits_and_features_of_one_pass(untrained, digits, kind):
    model = untrained(kind)
    logits, features = logits_and_features(model, digits[0][:4])
    assert not logits.requires_grad
    assert not features.requires_grad
    assert torch.equal(logits, model(digits[0][:4]))
    torch.testing.assert_close(linear_head(model)(features), logits)


def test_a_last_linear_layer_that_is_not_the_head_is_refused():
    tokens = nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Linear(4, 3), nn.Flatten())
    with pytest.raises(InputError, match=r"got features of shape \(5, 2, 4\): it must be the head, .* \(5, 4\)"):
        logits_and_features(tokens, torch.randn(5, 8))
    unused = nn.Sequential(nn.Linear(4, 3))
    unused[0].register_module("spare", nn.Linear(3, 3))
    with pytest.raises(InputError, match="the last linear layer of Sequential was not used: it must be the head"):
        logits_and_features(unused, torch.randn(5, 4))
