"""The mixer of expert features."""

import pytest
import torch

from models import Aggregator
from tta.errors import InputError


def test_any_number_of_tokens_in_any_order() -> None:
    aggregator = Aggregator(32, 10).eval()
    tokens = torch.randn(5, 4, 32)
    target = aggregator(tokens)
    assert target.shape == (5, 32)
    assert aggregator(tokens[:, :3]).shape == (5, 32)
    assert torch.allclose(aggregator(tokens[:, [2, 0, 3, 1]]), target, atol=1e-6)
    assert not torch.allclose(aggregator(tokens[:, :3]), target, atol=1e-3)


def test_samples_do_not_see_each_other() -> None:
    aggregator = Aggregator(32, 10).eval()
    tokens = torch.randn(5, 3, 32)
    assert torch.allclose(aggregator(tokens)[2:3], aggregator(tokens[2:3]), atol=1e-6)


def test_one_token_without_attention_or_perceptron_passes_through() -> None:
    aggregator = Aggregator(32, 10).eval()
    block = aggregator.blocks[0]
    for layer in (block.attention[1].out[0], block.mlp[4]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    tokens = torch.randn(5, 3, 32)
    assert torch.allclose(aggregator(tokens), tokens.mean(dim=1), atol=1e-6)


def test_attention_can_be_differentiated_twice() -> None:
    aggregator = Aggregator(8, 3, heads=2).double().eval()
    tokens = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(aggregator, (tokens,), atol=1e-6)


def test_dropout_only_in_training() -> None:
    aggregator = Aggregator(32, 10, dropout=0.5)
    tokens = torch.randn(2, 3, 32)
    assert not torch.equal(aggregator.train()(tokens), aggregator(tokens))
    assert torch.equal(aggregator.eval()(tokens), aggregator(tokens))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": 5}, "heads=5: must divide the 32 features of an expert; choose from 1, 2, 4, 8, 16, 32"),
        ({"heads": 0}, "heads=0: must divide"),
        ({"depth": 0}, "depth=0, dropout=0.1: need depth >= 1"),
        ({"dropout": 1.0}, "depth=1, dropout=1.0: need depth >= 1 and 0 <= dropout < 1"),
    ],
)
def test_bad_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Aggregator(32, 10, **arguments)
