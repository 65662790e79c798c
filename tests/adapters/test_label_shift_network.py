"""The network that turns a degree of imbalance into a change of the head, and corrections made of it or without it."""

import pytest
import torch
from torch import nn

import tta
from tta.adapters import LabelShiftNetwork, LogitAdjustment, NetworkCorrection
from tta.adapters.label_shift_network import FORMS, HeadChange
from tta.adapters.label_shift_source import SourceFigures
from tta.companion import Companion

COUNTS = [40.0, 20.0, 10.0]
HEAD = nn.Linear(4, 3)


@pytest.mark.parametrize("form", FORMS)
def test_untrained_network_changes_nothing(form):
    network = LabelShiftNetwork(4, COUNTS, form=form)
    features = torch.randn(5, 4)
    for prior in (torch.tensor([0.2, 0.3, 0.5]), network.source_prior):
        assert torch.equal(network(prior, HEAD).logits(HEAD, features), HEAD(features))


@pytest.mark.parametrize(("form", "rank"), [("full", 3), ("low_rank", 1), ("per_class_scale", 3)])
def test_change_has_the_shapes_and_the_rank_of_its_form(form, rank):
    network = LabelShiftNetwork(4, COUNTS, form=form, rank=1)
    nn.init.normal_(network.out.weight)
    gamma, beta, weight, bias = network(torch.tensor([0.1, 0.1, 0.8]), HEAD)
    assert (gamma.shape, beta.shape, weight.shape, bias.shape) == ((4,), (4,), (3, 4), (3,))
    assert torch.linalg.matrix_rank(weight) == rank
    if form == "per_class_scale":
        ratio = weight / HEAD.weight
        assert torch.allclose(ratio, ratio[:, :1].expand(3, 4), atol=1e-4)


def test_changed_head_by_hand():
    head = nn.Linear(2, 2)
    head.weight.data, head.bias.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0.5, -0.5])
    change = HeadChange(
        torch.tensor([2.0, 1.0]),
        torch.tensor([0.0, 1.0]),
        torch.tensor([[1.0, 0.0], [0.0, -1.0]]),
        torch.tensor([0.1, 0.2]),
    )
    # h' = (2 * 1 + 0, 1 * 1 + 1) = (2, 2); W + dW = ((2, 2), (3, 3)); b + db = (0.6, -0.3)
    assert torch.allclose(change.logits(head, torch.tensor([[1.0, 1.0]])), torch.tensor([[8.6, 11.7]]))


def test_network_sees_the_degree_alone():
    network = LabelShiftNetwork(4, COUNTS, degree="linear")
    nn.init.normal_(network.out.weight)
    away = network.source_prior - 1 / 3
    across = torch.tensor([away[1] - away[2], away[2] - away[0], away[0] - away[1]])
    one, other = torch.full((3,), 1 / 3), torch.full((3,), 1 / 3) + 0.1 * across
    assert torch.allclose(network(one, HEAD).delta_bias, network(other, HEAD).delta_bias, atol=1e-5)
    assert not torch.allclose(network(one, HEAD).delta_bias, network(network.source_prior, HEAD).delta_bias)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "half"}, "form='half': choose from full, low_rank, per_class_scale"),
        ({"degree": "cubic"}, "degree='cubic': choose from linear, log_slope"),
        ({"hidden": 0}, r"hidden=0.*need all >= 1"),
        ({"source_prior": [1.0, -1.0]}, "source_prior holds -1"),
    ],
)
def test_network_refuses(arguments, message):
    with pytest.raises(tta.InputError, match=message):
        LabelShiftNetwork(**{"features": 4, "source_prior": COUNTS, **arguments})


@pytest.mark.parametrize("form", FORMS)
def test_network_survives_a_companion_file(form, tmp_path):
    network = LabelShiftNetwork(4, COUNTS, hidden=5, form=form, rank=2, degree="linear", head="fc")
    nn.init.normal_(network.out.weight)
    Companion("LabelShift", network.tensors(), {"network": network.settings()}).save(tmp_path / "it.safetensors")
    state = torch.get_rng_state()
    loaded = LabelShiftNetwork.from_companion(Companion.load(tmp_path / "it.safetensors", "LabelShift"))
    assert torch.equal(torch.get_rng_state(), state)
    prior = torch.tensor([0.2, 0.2, 0.6])
    assert all(torch.equal(a, b) for a, b in zip(network(prior, HEAD), loaded(prior, HEAD), strict=True))
    assert loaded.settings() == network.settings()
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_damaged_or_foreign_companion_is_refused():
    network = LabelShiftNetwork(4, COUNTS)
    settings = {"network": network.settings()}
    with pytest.raises(tta.InputError, match="a companion of ITTA, not one of LabelShift"):
        LabelShiftNetwork.from_companion(Companion("ITTA", network.tensors(), settings))
    tensors = network.tensors()
    del tensors["network.out.bias"]
    with pytest.raises(tta.InputError, match=r"not whole .*: train it again with LabelShiftTraining"):
        LabelShiftNetwork.from_companion(Companion("LabelShift", tensors, settings))


def test_logit_adjustment_is_the_log_ratio_of_the_priors():
    source = SourceFigures(None, COUNTS)
    change = LogitAdjustment(strength=2.0, floor=1e-9).change(torch.tensor([0.25, 0.25, 0.5]), HEAD, source)
    expected = 2 * (torch.tensor([0.25, 0.25, 0.5]) / torch.tensor([4 / 7, 2 / 7, 1 / 7])).log()
    assert torch.allclose(change.delta_bias, expected, atol=1e-5)
    features = torch.randn(2, 4)
    assert torch.allclose(change.logits(HEAD, features), HEAD(features) + expected, atol=1e-5)


def test_corrections_refuse_what_they_cannot_do():
    with pytest.raises(tta.InputError, match="NetworkCorrection needs a trained network: give companion="):
        NetworkCorrection().check(SourceFigures(None, COUNTS))
    with pytest.raises(tta.InputError, match=r"strength=-1\.0, floor=0\.01: need strength >= 0"):
        LogitAdjustment(strength=-1.0)


def test_uniform_head_without_a_network_is_balanced_by_the_source_prior():
    source = SourceFigures(None, COUNTS)
    features = torch.randn(5, 4)
    expected = (HEAD(features) - source.prior.log()).softmax(1)
    for which in ("raw", "uniform"):
        assert torch.allclose(source.posteriors(which, source.logits(which, HEAD, features)), expected, atol=1e-5)
