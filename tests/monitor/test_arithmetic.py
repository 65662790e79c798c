"""What a backward pass costs, in forward passes."""

import copy
import threading

import pytest
import torch
from torch import Tensor, nn

from tta.adapters import SHOT, Tent
from tta.monitor import CostMeter, backward_in_forwards

IMAGES = torch.rand(2, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def toy() -> nn.Sequential:
    """Products of 5 x 4 and 4 x 3 numbers: 32 multiplications a sample."""
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3))


@pytest.mark.parametrize(
    ("layers", "multiplications"),
    [((0, 1, 2), 20 + 12 + 12), ((1,), 12), ((2,), 12), ((0,), 20 + 12), ((), 0)],
    ids=["all", "norm", "head", "lowest", "none"],
)
def test_ratios_by_hand(toy, layers, multiplications):
    """A weight's gradient and an input's take a product each; there is none for what lies below the lowest trained."""
    trained = [parameter for layer in layers for parameter in toy[layer].parameters()]
    assert backward_in_forwards(toy, trained, IMAGES) == multiplications / 32
    with torch.inference_mode():
        assert backward_in_forwards(toy, trained, IMAGES) == multiplications / 32
    assert backward_in_forwards(toy, trained, IMAGES[:1]) == multiplications / 32


def test_parameters_of_the_method_itself_take_a_gradient_down_to_the_images(toy):
    assert backward_in_forwards(toy, [nn.Parameter(torch.zeros(3))], IMAGES) == 1.0


def test_networks_take_one_forward_pass_for_their_norms_and_two_for_all(untrained):
    for adapter, ratio in ((Tent(), 1.0), (SHOT(), 2.0)):
        for kind in ("bn", "ln", "gn"):
            model = untrained(kind)
            adapter.prepare(model)
            counted = backward_in_forwards(model, adapter.trainable(model), torch.rand(2, 3, 32, 32))
            assert counted == pytest.approx(ratio, abs=0.15)


def test_attention_is_counted_whatever_kernel_would_run_it():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).requires_grad_(False)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(5 * 8, 3))
    head = list(model[2].parameters())
    forward = 5 * (4 * 8 * 8 + 2 * 8 * 16) + 2 * 5 * 5 * 8 + 5 * 8 * 3
    for training in (True, False):
        assert backward_in_forwards(model.train(training), head, torch.rand(2, 5, 8)) == 5 * 8 * 3 / forward


def test_nothing_changes(untrained, flat):
    model = nn.Sequential(untrained("bn"), nn.Dropout(0.5)).train()
    model[0].fc.requires_grad_(False)
    images = torch.rand(2, 3, 32, 32)
    images[0, 0, 0, 0] = torch.nan
    meter, before = CostMeter(model), flat([model.state_dict(), torch.get_rng_state()])
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    again = copy.deepcopy(images)
    assert backward_in_forwards(model, list(model[0].bn1.parameters()), images) > 0.0
    assert flat([model.state_dict(), torch.get_rng_state()]) == before
    assert (meter.forwards, meter.backwards) == (0, 0)
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    torch.testing.assert_close(images, again, rtol=0.0, atol=0.0, equal_nan=True)
    assert not images.requires_grad


class Sums(nn.Module):
    """Does nothing that is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


@pytest.mark.parametrize("what", ["has nothing that is counted", "cannot be copied", "fails"])
def test_what_cannot_be_counted_takes_the_usual_ratio(toy, what):
    model = Sums() if what == "has nothing that is counted" else toy
    if what == "cannot be copied":
        model.lock = threading.Lock()
    images = IMAGES[:, :2] if what == "fails" else IMAGES
    assert backward_in_forwards(model, list(model.parameters()), images) == 2.0
