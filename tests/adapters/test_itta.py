"""ITTA's decisive step, its sources of styles, and what it refuses."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
import tta
from tta.adapters import ITTA
from tta.adapters.blocks import changed_outputs
from tta.adapters.consistency import StyleDraw
from tta.adapters.head import features_of, linear_head
from tta.companion import Companion

CPU = torch.device("cpu")


@pytest.fixture
def companion(build) -> Companion:
    """The companion of the small GroupNorm network, taken from an adapter's arguments."""
    return _companion(build("itta", "gn").adapter)


def _companion(adapter: ITTA) -> Companion:
    tensors = {f"consistency.{name}": value for name, value in adapter.consistency.state_dict().items()}
    tensors |= {f"bank.{name}": value for name, value in adapter.bank.state_dict().items()}
    return Companion("ITTA", tensors, adapter.settings)


@pytest.mark.parametrize("kind", ["bn", "ln", "gn"])
@pytest.mark.parametrize("affine", ["full", "channel"])
def test_maps_start_as_the_identity(build, trained, stream, kind, affine):
    online, plain = build("itta", kind, affine=affine), trained(kind).eval()
    with torch.no_grad():
        assert torch.equal(online.adapter.predict(online.model, stream[0]), plain(stream[0]))


def test_one_step_is_the_gradient_of_the_consistency_loss(build, trained, stream):
    """The last map's bias after a step made by hand: features of both passes, ReLU of the difference, mean square."""
    online, x = build("itta", "gn", blocks=["layer3"], lr=0.5, momentum=0.0), stream[0]
    model = trained("gn").eval()
    draw = StyleDraw.make((0, 0, 0), len(x), 2, 0.1, CPU)
    bias = torch.zeros(64, 8, 8, requires_grad=True)

    def features(changes):
        with changed_outputs(model, changes), features_of(linear_head(model)) as found:
            model(x)
        return found[0]

    plain = features({"layer3": lambda output: output + bias})
    styled = features({f"layer{draw.block + 1}": draw.mix, "layer3": lambda output: output + bias})
    loss = F.relu(styled - plain).square().mean()
    online(x)
    assert online.last.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    assert loss.item() > 0.0
    (gradient,) = torch.autograd.grad(loss, bias)
    assert torch.allclose(online.adapter.maps.biases[0][-1], -0.5 * gradient, atol=1e-8)


def test_steps_lower_the_loss_that_they_minimise(build, stream):
    online = build("itta", "gn", optimizer="adam", lr=0.003)
    x = torch.cat(stream)
    losses = []
    for _ in range(12):
        online.adapter.batches.zero_()
        online(x)
        losses.append(online.last.loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_a_batch_of_one_teaches_only_with_a_bank(build, everything, stream):
    lonely = build("itta", "gn", lr=0.1)
    before = everything(lonely)
    lonely(stream[0][:1])
    assert lonely.last.loss is None
    assert everything(lonely) == before
    banked = build("itta", "gn", style_source="bank", lr=0.1)
    banked(stream[0][:1])
    assert banked.last.loss > 0.0
    assert any(not torch.equal(bias, torch.zeros_like(bias)) for bias in banked.adapter.maps.biases)


@pytest.mark.parametrize("kind", ["bn", "ln", "gn"])
def test_the_released_protocol_is_inert(build, stream, kind):
    """With its batch of one, its Adam and its learning rate, whatever the images: over all of the stream."""
    released = build("itta", kind, optimizer="adam", lr=5e-6, released_protocol=True)
    frozen = copy.deepcopy(released.model)
    with torch.no_grad():
        changes = [(released(x) - frozen(x)).abs().max().item() for x in torch.cat(stream).split(1)]
    assert max(changes) < 1e-4
    assert released.last.loss is not None, "it does take its steps"


def test_the_released_scale_alone_leaves_little(build, stream):
    released, alive = (build("itta", "gn", optimizer="adam", lr=5e-6, released_protocol=r) for r in (True, False))
    frozen = copy.deepcopy(released.model)
    with torch.no_grad():
        small, large = (max((m(x) - frozen(x)).abs().max().item() for x in stream) for m in (released, alive))
    assert small < 0.1 * large


def test_transformer_maps_have_no_relu_and_convolutional_ones_have(build):
    assert build("itta", "ln").adapter.maps.relu == [False, False]
    assert build("itta", "bn").adapter.maps.relu == [True, True, True]
    assert build("itta", "bn", relu=False).adapter.maps.relu == [False, False, False]


def test_parameters_follow_activations_or_channels(build):
    assert [tuple(w.shape) for w in build("itta", "gn").adapter.maps.weights] == [
        (5, 16, 32, 32),
        (5, 32, 16, 16),
        (5, 64, 8, 8),
    ]
    per_channel = build("itta", "gn", affine="channel", blocks=["layer2"]).adapter
    assert [tuple(w.shape) for w in per_channel.maps.weights] == [(5, 32, 1, 1)]
    assert [tuple(w.shape) for w in build("itta", "ln", affine="channel").adapter.maps.weights] == [(5, 64), (5, 64)]


def test_another_image_size_needs_maps_per_channel(build):
    small = torch.rand(4, 3, 16, 16)
    with pytest.raises(
        tta.InputError, match=r"block 'layer1' gives activations of shape \[16, 16, 16\].*\[16, 32, 32\]"
    ):
        build("itta", "gn")(small)
    assert torch.isfinite(build("itta", "gn", affine="channel")(small)).all()


def test_the_model_carries_no_hooks_between_batches(build, stream):
    online = build("itta", "gn")
    online(stream[0])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in online.model.modules())


def test_costs_grow_with_the_steps(build):
    facts = build("itta", "gn", steps=3).adapter.facts
    assert (facts.steps_per_batch, facts.forwards, facts.backwards) == (3, 7, 6)
    assert ITTA.facts.forwards == 3


def test_a_companion_is_also_read_from_its_file(companion, tmp_path, trained, stream):
    companion.save(tmp_path / "companion.safetensors")
    answers = [
        tta.online(trained("gn"), "itta", companion=given, lr=0.1)(stream[0])
        for given in (companion, tmp_path / "companion.safetensors", str(tmp_path / "companion.safetensors"))
    ]
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"affine": "layer"}, "affine is full or channel"),
        ({"style_source": "web"}, "style_source is batch or bank"),
        ({"steps": 0}, "need steps >= 1"),
        ({"alpha": 0.0}, "alpha > 0"),
        ({"seed": -1}, "seed >= 0"),
        ({"blocks": ["layer7"]}, r"blocks=\['layer7'\]: the companion was trained for layer1, layer2, layer3"),
        ({"blocks": []}, "choose among these"),
        ({"style_blocks": ["layer3"]}, "the companion was trained for layer1, layer2"),
        ({"companion": "nowhere.safetensors"}, "no companion of ITTA at .*nowhere.safetensors"),
    ],
)
def test_bad_arguments_are_told_in_one_line(companion, arguments, message):
    with pytest.raises(tta.InputError, match=message) as told:
        ITTA(**{"companion": companion, **arguments})
    assert "\n" not in str(told.value)


def test_companions_that_do_not_fit_are_told(companion, trained):
    def refused(model: nn.Module, message: str, given: Companion = companion) -> None:
        with pytest.raises(tta.InputError, match=message) as told:
            tta.online(model, "itta", companion=given)
        assert "\n" not in str(told.value)

    refused(trained("bn"), "trained for 64 features and 10 classes.*'linear'|no linear layer of that name")
    refused(models.CifarResNet(8, num_classes=7), "64 features and 10 classes, and the head 'linear' has 64 and 7")
    refused(nn.Sequential(nn.Linear(3, 10)), r"ITTA's blocks, by its companion: 'layer1' is no block of Sequential")
    refused(trained("gn"), "a companion of SADE, not one of ITTA", Companion("SADE", {}))
    refused(trained("gn"), "is incomplete", Companion("ITTA", {}, companion.settings))
    without_head = {name: value for name, value in companion.settings.items() if name != "head"}
    refused(trained("gn"), "lacks head", dataclasses.replace(companion, settings=without_head))


def test_an_empty_bank_is_told(companion):
    empty = {name: value[:0] if name != "bank.seen" else value * 0 for name, value in companion.tensors.items()}
    tensors = {**companion.tensors, **{name: value for name, value in empty.items() if name.startswith("bank")}}
    with pytest.raises(tta.InputError, match="has no styles of source images"):
        ITTA(Companion("ITTA", tensors, companion.settings), style_source="bank")
