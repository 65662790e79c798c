"""Styles, mixed by hand."""

import pytest
import torch

from tta.errors import InputError
from tta.functional import mix_style, style


def test_style_is_mean_and_unbiased_deviation_over_positions():
    maps = torch.tensor([[[[1.0, 3.0]]]])
    mean, std = style(maps)
    assert mean.shape == std.shape == (1, 1, 1, 1)
    assert (mean.item(), std.item()) == (2.0, pytest.approx((2 + 1e-6) ** 0.5))
    tokens = torch.randn(2, 5, 3)
    mean, std = style(tokens)
    assert mean.shape == std.shape == (2, 1, 3)
    assert torch.allclose(mean, tokens.mean(dim=1, keepdim=True), atol=1e-6)
    assert torch.allclose(std, (tokens.var(dim=1, keepdim=True) + 1e-6).sqrt())


def test_mixing_with_another_sample_by_hand():
    """(1, 3) has mean 2 and deviation sqrt 2, (0, 8) 4 and 4 sqrt 2; a quarter of its own: 3.5 and 3.25 sqrt 2."""
    maps = torch.tensor([[[[1.0, 3.0]]], [[[0.0, 8.0]]]])
    mixed = mix_style(maps, torch.tensor([0.25, 1.0]), torch.tensor([1, 0]))
    assert torch.allclose(mixed[0], torch.tensor([[[0.25, 6.75]]]), atol=1e-4)
    assert torch.allclose(mixed[1], maps[1], atol=1e-5)


def test_mixing_with_given_styles_by_hand():
    tokens = torch.tensor([[[1.0], [3.0]]])
    mixed = mix_style(tokens, torch.tensor([0.0]), (torch.tensor([[10.0]]), torch.tensor([[2.0 * 2**0.5]])))
    assert torch.allclose(mixed, torch.tensor([[[8.0], [12.0]]]), atol=1e-4)


@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (4, 7, 3)])
def test_a_sample_mixed_with_itself_is_itself(shape):
    x = torch.randn(shape)
    mixed = mix_style(x, torch.rand(4), torch.arange(4))
    assert torch.allclose(mixed, x, atol=1e-5)


def test_statistics_are_constants_and_the_dtype_stays():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    mix_style(x, torch.tensor([0.0, 0.0]), torch.tensor([1, 0])).sum().backward()
    _, std = style(x)
    expected = (std[[1, 0]] / std).expand_as(x)
    assert torch.allclose(x.grad, expected, rtol=1e-4)
    half = x.detach().bfloat16()
    assert mix_style(half, torch.ones(2), torch.tensor([1, 0])).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("shape", "message"), [((2, 5), "have no style"), ((2, 5, 1, 1), "one position"), ((2, 1, 5), "one position")]
)
def test_what_has_no_style_is_told(shape, message):
    with pytest.raises(InputError, match=message):
        style(torch.zeros(shape))
