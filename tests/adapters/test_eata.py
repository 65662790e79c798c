"""EATA: selection, weights, moving average, Fisher information and anchor, each by hand."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.adapters import EATA

LN3 = math.log(3)


@pytest.fixture
def toy() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3))


def entropies(logits: Tensor) -> Tensor:
    p = logits.softmax(1)
    return -(p * p.log()).sum(1)


def test_first_step_weights_reliable_samples_by_their_certainty(toy):
    x = torch.randn(20, 5)
    start = copy.deepcopy(toy)
    online = tta.online(toy, "eata", fisher_alpha=0.0, margin=0.9, lr=0.3, momentum=0.0)
    assert torch.equal(online(x), start(x).detach())
    entropy, e0 = entropies(start(x)), 0.9 * LN3
    chosen = entropy < e0
    assert 0 < chosen.sum() < 20
    assert torch.equal(online.last.reliable, chosen)
    weights = torch.exp(e0 - entropy[chosen].detach())
    assert weights.max() > 1.2 * weights.min()
    loss = (weights * entropy[chosen]).sum() / chosen.sum()
    gradients = torch.autograd.grad(loss, [start[1].weight, start[1].bias])
    torch.testing.assert_close(online.last.loss, loss.detach())
    torch.testing.assert_close(toy[1].weight, start[1].weight - 0.3 * gradients[0])
    torch.testing.assert_close(toy[1].bias, start[1].bias - 0.3 * gradients[1])


def test_moving_average_and_redundancy_filter(toy):
    batches = torch.randn(6, 20, 5)
    online = tta.online(toy, "eata", fisher_alpha=0.0, margin=0.95, redundancy=0.8, lr=0.05)
    average, filtered = None, 0
    for x in batches:
        logits = online(x)
        p = logits.softmax(1)
        reliable = entropies(logits) < 0.95 * LN3
        chosen = reliable
        if average is not None:
            cosine = (p @ average) / (p.norm(dim=1) * average.norm())
            chosen = reliable & (cosine.abs() < 0.8)
        filtered += int(reliable.sum() - chosen.sum())
        assert torch.equal(online.last.reliable, chosen)
        if chosen.any():
            mean = p[chosen].mean(0)
            average = mean if average is None else 0.9 * average + 0.1 * mean
        torch.testing.assert_close(online.adapter.mean_prediction, average)
    assert filtered > 0
    assert online.last.reliable.sum() < 20


def test_nothing_selected_leaves_the_moving_average(toy):
    online = tta.online(toy, "eata", fisher_alpha=0.0, margin=1.5, redundancy=1.5)
    online(torch.randn(20, 5))
    average = online.adapter.mean_prediction.clone()
    weight = toy[1].weight.detach().clone()
    online.adapter.redundancy = 1e-9
    online(torch.randn(20, 5))
    assert not online.last.reliable.any()
    assert torch.equal(online.adapter.mean_prediction, average)
    assert torch.equal(toy[1].weight, weight)


def explicit_fisher(model: nn.Sequential, batches: list[Tensor]) -> Tensor:
    """Mean over batches of the square of the batch-mean gradient against the predicted class."""
    total = torch.zeros(8)
    for x in batches:
        model.zero_grad()
        logits = model(x)
        (-logits.log_softmax(1)[torch.arange(len(x)), logits.argmax(1)]).mean().backward()
        total += torch.cat([model[1].weight.grad, model[1].bias.grad]) ** 2
    model.zero_grad()
    return total / len(batches)


def test_fisher_information_and_anchor(toy):
    batches = list(torch.randn(3, 8, 5))
    expected = explicit_fisher(copy.deepcopy(toy), batches)
    online = tta.online(toy, "eata", source=batches)
    torch.testing.assert_close(online.adapter.fisher, expected)
    assert expected.max() > 1e-4
    assert torch.equal(online.adapter.anchor, torch.cat([toy[1].weight, toy[1].bias]).detach())
    assert all(p.grad is None for p in toy.parameters())


def test_source_batches_may_be_tensors_pairs_or_mappings(toy):
    images, labels = torch.randn(3, 8, 5), torch.zeros(8)
    forms = [list(images), [(x, labels) for x in images], [{"image": x, "label": labels} for x in images]]
    fishers = [tta.online(copy.deepcopy(toy), "eata", source=form).adapter.fisher for form in forms]
    assert torch.equal(fishers[0], fishers[1])
    assert torch.equal(fishers[0], fishers[2])


def test_penalty_pulls_back_to_the_source_weights(toy):
    """Second step of SGD: gradient of the weighted entropy plus 2 alpha F (theta - theta0)."""
    source, x, y = list(torch.randn(3, 8, 5)), torch.randn(20, 5), torch.randn(20, 5)
    start = copy.deepcopy(toy)
    online = tta.online(toy, EATA(1.5, 1.5, fisher_alpha=30.0), lr=0.3, momentum=0.0, source=source)
    fisher = explicit_fisher(start, source)
    online(x)
    moved = copy.deepcopy(toy)
    shift = torch.cat([moved[1].weight - start[1].weight, moved[1].bias - start[1].bias]).detach()
    online(y)
    entropy = entropies(moved(y))
    loss = (torch.exp(1.5 * LN3 - entropy.detach()) * entropy).mean()
    gradients = torch.cat(torch.autograd.grad(loss, [moved[1].weight, moved[1].bias]))
    pull = 2 * 30.0 * fisher * shift
    assert pull.abs().max() > 1e-3
    theta = torch.cat([moved[1].weight, moved[1].bias]).detach() - 0.3 * (gradients + pull)
    torch.testing.assert_close(torch.cat([toy[1].weight, toy[1].bias]).detach(), theta, rtol=1e-4, atol=1e-6)
    expected_loss = loss.detach() + 30.0 * (fisher * shift**2).sum()
    torch.testing.assert_close(online.last.loss, expected_loss)


def test_reset_forgets_predictions_and_keeps_the_fisher_information(toy):
    online = tta.online(toy, EATA(1.5, 1.5), source=list(torch.randn(3, 8, 5)))
    fisher, anchor = online.adapter.fisher.clone(), online.adapter.anchor.clone()
    online(torch.randn(20, 5))
    assert online.adapter.mean_prediction.shape == (3,)
    online.reset()
    assert online.adapter.mean_prediction.shape == (0,)
    assert torch.equal(online.adapter.fisher, fisher)
    assert torch.equal(online.adapter.anchor, anchor)


def test_anchor_without_source_images_is_refused_at_the_first_batch(toy):
    online = tta.online(toy, "eata")
    with pytest.raises(tta.InputError, match=r"no Fisher information: give source images .* or set fisher_alpha=0"):
        online(torch.randn(4, 5))


def test_empty_source_loader_is_refused(toy):
    with pytest.raises(tta.InputError, match="gave no batch"):
        tta.online(toy, "eata", source=[])


def test_facts_follow_the_anchor():
    assert EATA().facts.needs_source_data
    assert not EATA(fisher_alpha=0.0).facts.needs_source_data
    assert EATA.facts.needs_source_data


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"margin": 0.0}, "margin=0.0: need margin > 0"),
        ({"redundancy": -1.0}, "redundancy=-1.0: need redundancy > 0"),
        ({"fisher_alpha": -1.0}, r"fisher_alpha=-1.0: need fisher_alpha >= 0; 0 turns the anchor off"),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(tta.InputError, match=message):
        EATA(**arguments)


def test_zero_alpha_is_the_method_without_anchor(toy):
    """And a tiny alpha differs from it, so the anchor is not simply ignored."""
    source, batches = list(torch.randn(3, 8, 5)), torch.randn(3, 20, 5)
    outputs = {}
    for alpha in (0.0, 1e-12, 50.0):
        online = tta.online(copy.deepcopy(toy), EATA(1.5, 1.5, fisher_alpha=alpha), lr=0.3, source=source)
        outputs[alpha] = torch.stack([online(x) for x in batches])
    torch.testing.assert_close(outputs[0.0], outputs[1e-12])
    assert (outputs[0.0] - outputs[50.0]).abs().max() > 1e-3
