"""Protocols that give a part of the weights back."""

import math

import pytest
import torch
from torch import nn

import tta
from tta.adapters import ResetScope
from tta.errors import InputError
from tta.resets import FisherRestore, StochasticRestore
from tta.resets.partial import quantile

X = torch.ones(2, 2)


def test_probability_one_restores_every_element_and_nothing_else(walk):
    online = walk(StochasticRestore(probability=1.0), momentum=0.9)
    for _ in range(2):
        online(X)
        assert (online.model.weight == 0).all()
    assert online.optimizer.state, "momentum goes on"
    assert int(online.adapter.seen) == 2, "so does the method"
    assert online.resets == 0, "a partial restore is no reset"


def test_share_of_restored_elements_and_fresh_draws(walk):
    online = walk(StochasticRestore(probability=0.2), size=5000)
    online(X)
    first = online.model.weight == 0
    online(X)
    # Restored by the second draw, kept by it after being restored by the first, kept by both.
    values = [float((online.model.weight == value).float().mean()) for value in (0.0, -1.0, -2.0)]
    deviation = math.sqrt(0.25 / 10000)
    assert float(first.float().mean()) == pytest.approx(0.2, abs=5 * deviation)
    assert values == pytest.approx([0.2, 0.16, 0.64], abs=5 * deviation)


def test_masks_depend_on_the_seed_alone(walk):
    def after(seed, batches=2):
        online = walk(StochasticRestore(probability=0.5, seed=seed), size=50)
        torch.rand(seed + 1)
        state = torch.get_rng_state()
        for _ in range(batches):
            online(X)
        assert torch.equal(torch.get_rng_state(), state)
        return online.model.weight.detach().clone()

    torch.manual_seed(1)
    one = after(3)
    torch.manual_seed(2)
    assert torch.equal(after(3), one)
    assert not torch.equal(after(4), one)


def test_every_tensor_has_masks_of_its_own():
    protocol = StochasticRestore(probability=0.5)
    parameters = [nn.Parameter(torch.zeros(100)), nn.Parameter(torch.zeros(100))]
    one, other = protocol.masks(None, parameters)  # type: ignore[arg-type]
    assert not torch.equal(one, other)


def test_a_weight_that_is_no_number_is_restored(walk):
    online = walk(StochasticRestore(probability=1.0))
    online.model.weight.data[0, 0] = torch.nan
    online(X)
    assert (online.model.weight == 0).all()


def test_fisher_restores_the_least_informative_elements(walk):
    """Eight squared gradients 1, 4, ..., 64: the quantile 0.3 lies at position 2.1, at 9 + 0.1 * 7."""
    gradient = torch.tensor([[3.0, -8.0], [-1.0, 6.0], [2.0, 7.0], [4.0, 5.0]])
    online = walk(FisherRestore(share=0.3), size=4, gradients=[gradient])
    online(X)
    expected = torch.tensor([[0.0, 8.0], [0.0, -6.0], [0.0, -7.0], [-4.0, -5.0]])
    assert torch.equal(online.model.weight.detach(), expected)
    assert online.resets == 0
    assert online.updater.squared_gradients == {}


def test_fisher_looks_at_all_tensors_together(walk):
    """Three squared gradients of 1 and three of 9, over both tensors: the quantile 0.6 is the fourth."""
    online = walk(FisherRestore(share=0.6), size=2, bias=True, gradients=[torch.tensor([1.0, 3.0])])
    online(X)
    assert torch.equal(online.model.weight.detach(), torch.tensor([[0.0, -3.0], [0.0, -3.0]]))
    assert torch.equal(online.model.bias.detach(), torch.tensor([0.0, -3.0]))


def test_fisher_restores_nothing_where_too_many_gradients_are_zero(walk):
    """As published: what lies strictly below a quantile of zero is nothing."""
    online = walk(FisherRestore(share=0.3), gradients=[torch.ones(()), torch.tensor([0.0, 1.0])])
    online(X)
    online(X)
    assert torch.equal(online.model.weight.detach(), torch.tensor([[-1.0, -2.0]] * 3))


def test_fisher_restores_nothing_without_a_step(walk):
    gradients = [torch.tensor([1.0, 2.0]), None, torch.tensor([torch.inf, 1.0])]
    online = walk(FisherRestore(share=0.6), gradients=gradients)
    online(X)
    moved = torch.tensor([[0.0, -2.0]] * 3)
    assert torch.equal(online.model.weight.detach(), moved)
    online.model.weight.data -= 1.0
    for _ in range(2):
        online(X)
        assert torch.equal(online.model.weight.detach(), moved - 1.0)
    assert online.updater.skipped_steps == 1


def test_updater_keeps_no_squares_unasked(walk):
    online = walk("continual")
    online(X)
    assert online.updater.squared_gradients == {}


def test_a_reset_comes_after_a_partial_restore(walk):
    online = walk(StochasticRestore(probability=0.5), asks=[ResetScope.ALL], size=50)
    online(X)
    assert (online.model.weight == 0).all()
    assert online.resets == 1


class Outside(tta.adapters.Adapter):
    """Trains two numbers of its own, which it adds to the logits."""

    facts = tta.adapters.Facts(needs_gradients=True, steps_per_batch=1)

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.full((2,), 5.0))

    def prepare(self, model):
        model.requires_grad_(False)

    def trainable(self, model):
        return [self.shift]

    def reset(self):
        self.shift.data.fill_(5.0)

    def adapt(self, model, x, updater):
        with torch.enable_grad():
            updater.backward((self.shift * torch.tensor([1.0, 2.0])).sum())
        updater.step()
        return tta.adapters.AdapterOutput((model(x) + self.shift).detach())


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [(StochasticRestore(probability=1.0), [5.0, 5.0]), (FisherRestore(share=0.5), [5.0, 3.0])],
    ids=["stochastic", "fisher"],
)
def test_what_a_method_trains_outside_the_model_goes_back_to_its_start(protocol, expected):
    online = tta.online(nn.Linear(2, 2), Outside(), resets=protocol, lr=1.0, momentum=0.0)
    online(X)
    assert online.adapter.shift.tolist() == expected


@pytest.mark.parametrize("size", [1, 2, 7, 100])
@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.97, 1.0])
def test_quantile(size, share):
    values = torch.rand(size)
    torch.testing.assert_close(quantile(values, share), torch.quantile(values, share))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StochasticRestore(probability=0.0), "probability=0.0, seed=0: need 0 < probability <= 1"),
        (lambda: StochasticRestore(probability=1.1), "probability=1.1"),
        (lambda: StochasticRestore(seed=-1), "seed=-1"),
        (lambda: FisherRestore(share=0.0), "share=0.0: need 0 < share < 1"),
        (lambda: FisherRestore(share=1.0), "share=1.0"),
    ],
)
def test_values_out_of_range(make, message):
    with pytest.raises(InputError, match=message):
        make()
