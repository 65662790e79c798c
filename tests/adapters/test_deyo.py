"""DeYO: probability difference, filters, weights and step by hand; shuffles; single certain samples."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.adapters import DeYO, Select
from tta.functional.forward_record import checking, played_back

LN3 = math.log(3)


@pytest.fixture
def toy() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 6), nn.LayerNorm(6), nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3)
    )


def entropies(logits: Tensor) -> Tensor:
    p = logits.softmax(1)
    return -(p * p.log()).sum(1)


def inputs_of(model: nn.Module) -> list[Tensor]:
    """What goes through the model from now on, checks and graphs that are built from a record left out."""
    seen: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if not checking() and not played_back():
            seen.append(inputs[0])

    model.register_forward_hook(note)
    return seen


def sorted_patches(images: Tensor) -> Tensor:
    patches = images.unfold(2, 2, 2).unfold(3, 2, 2).flatten(2, 3).flatten(3)
    return patches.sort(dim=2).values


def test_whole_step_equals_a_plain_computation(toy):
    x = torch.randn(40, 1, 8, 8)
    start = copy.deepcopy(toy)
    online = tta.online(toy, "deyo", margin=0.95, weight_margin=0.6, plpd_threshold=0.2, lr=0.3, momentum=0.0)
    seen = inputs_of(toy)
    z = start(x)
    assert torch.equal(online(x), z.detach())

    entropy, p = entropies(z), z.softmax(1).detach()
    certain = entropy < 0.95 * LN3
    assert len(seen) == 2
    assert torch.equal(sorted_patches(seen[1]), sorted_patches(x[certain]))
    shuffled = start(seen[1]).softmax(1).detach()
    rows = certain.nonzero().flatten().tolist()
    plpd = {row: float(p[row].max() - shuffled[number][p[row].argmax()]) for number, row in enumerate(rows)}
    reliable = [row for row in rows if plpd[row] > 0.2]
    assert 0 < len(reliable) < len(rows) < 40
    assert online.last.reliable.nonzero().flatten().tolist() == reliable

    weights = torch.tensor(
        [math.exp(0.6 * LN3 - float(entropy[row].detach())) + math.exp(plpd[row]) for row in reliable]
    )
    loss = (weights * entropy[reliable]).sum() / len(reliable)
    torch.testing.assert_close(online.last.loss, loss.detach())
    gradients = torch.autograd.grad(loss, [start[2].weight, start[2].bias])
    torch.testing.assert_close(toy[2].weight, start[2].weight - 0.3 * gradients[0])
    torch.testing.assert_close(toy[2].bias, start[2].bias - 0.3 * gradients[1])
    assert torch.equal(toy[4].weight, start[4].weight), "the upper quarter stays"


def test_no_certain_sample_takes_no_second_pass_and_no_reliable_one_no_step(toy):
    online = tta.online(toy, "deyo", margin=1e-6, lr=0.3)
    seen, x = inputs_of(toy), torch.randn(8, 1, 8, 8)
    before = copy.deepcopy(toy.state_dict())
    online(x)
    assert len(seen) == 1
    online.adapter.margin, online.adapter.plpd_threshold = 1.5, 0.999
    online(x)
    assert len(seen) == 3
    assert online.last.loss is None
    assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())


def test_shuffles_differ_between_images_and_batches_and_come_from_the_seed(toy):
    x = torch.randn(1, 1, 8, 8).expand(6, 1, 8, 8)
    runs = []
    for seed in (0, 0, 1):
        model = copy.deepcopy(toy)
        online, seen = tta.online(model, "deyo", margin=1.5, seed=seed), inputs_of(model)
        for _ in range(2):
            online(x)
        online.reset()
        online(x)
        runs.append(seen[1::2])
    assert len({tuple(image.flatten().tolist()) for image in runs[0][0]}) == 6
    assert not torch.equal(runs[0][0], runs[0][1])
    assert torch.equal(runs[0][0], runs[0][2]), "after a reset the shuffles start anew"
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not torch.equal(runs[0][0], runs[2][0])


def test_a_single_certain_sample_is_judged_where_its_statistics_would_fail():
    """A last map of one pixel: the whole batch is shuffled, and the sample's row is what counts."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    x = torch.randn(5, 1, 8, 8)
    start = copy.deepcopy(model)
    start.train()
    entropy = entropies(start(x)).detach().sort().values
    share = float(entropy[:2].mean() / LN3)
    online = tta.online(model, "deyo", margin=share, plpd_threshold=-1.0, select=Select(), lr=0.3)
    seen = inputs_of(model)
    online(x)
    assert [len(images) for images in seen] == [5, 5]
    assert online.last.reliable.sum() == 1
    plpd = (start(x).softmax(1) - start(seen[1]).softmax(1)).detach()
    row = int(online.last.reliable.nonzero())
    p = float(plpd[row, start(x)[row].argmax()])
    weight = math.exp(0.4 * LN3 - float(entropy[0])) + math.exp(p)
    assert float(online.last.loss) == pytest.approx(weight * float(entropy[0]), rel=1e-4)


def test_second_pass_has_the_statistics_of_the_certain_samples():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 4, 4, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 3))
    x = torch.randn(5, 1, 8, 8)
    start = copy.deepcopy(model)
    start.train()
    share = float(entropies(start(x)).detach().sort().values[1:3].mean() / LN3)
    online = tta.online(model, "deyo", margin=share, plpd_threshold=-1.0, select=Select())
    seen = inputs_of(model)
    online(x)
    assert [len(images) for images in seen] == [5, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"margin": 0.0}, "margin=0.0: need margin > 0"),
        ({"weight_margin": -1.0}, "weight_margin=-1.0: need weight_margin > 0"),
        ({"plpd_threshold": 1.0}, "plpd_threshold=1.0: need -1 <= plpd_threshold < 1"),
        ({"patches": 1}, "patches=1, seed=0: need patches >= 2 and seed >= 0"),
        ({"seed": -1}, "patches=4, seed=-1: need patches >= 2"),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(tta.InputError, match=message):
        DeYO(**arguments)


def test_inputs_that_are_no_images_are_refused():
    online = tta.online(nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3)), "deyo", margin=1.5)
    with pytest.raises(tta.InputError, match=r"images of shape \(4, 5\) have no patches"):
        online(torch.randn(4, 5))
