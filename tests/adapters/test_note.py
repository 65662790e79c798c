"""NOTE: predictions one by one, a memory, and updates at their time."""

import copy

import pytest
import torch
from torch import Tensor, nn

import models
import tta
from tta.adapters import NOTE

SMALL = {"memory": 6, "period": 6}


@pytest.fixture
def images(digits) -> Tensor:
    return digits[0][900:930]


def online(model: nn.Module, **arguments) -> tta.OnlineModel:
    return tta.online(copy.deepcopy(model), "note", **{"lr": 0.05, **SMALL, **arguments})


def statistics(model: nn.Module) -> list[Tensor]:
    return [buffer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d) for buffer in layer.buffers()]


@pytest.mark.parametrize("aware", [False, True])
def test_update_recomputed_plainly(trained, images, aware):
    """Predict in eval mode; then one SGD step on the mean entropy of the six images by their own statistics."""
    source = models.with_iabn(trained("bn"), k=1.0) if aware else trained("bn")
    plain, x = copy.deepcopy(source).eval(), images[:6]
    before = plain(x).detach()
    layers = [m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)]
    for layer in layers:
        layer.train()
        layer.momentum = 0.01
    probabilities = plain(x).softmax(dim=1)
    loss = -(probabilities * probabilities.log()).sum(dim=1).mean()
    parameters = [p for layer in layers for p in layer.parameters()]
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 0.05 * gradient

    model = online(source)
    logits = model(x)
    torch.testing.assert_close(logits, before, rtol=1e-4, atol=1e-5)
    assert model.last.loss.item() == pytest.approx(loss.item(), rel=1e-4)
    for (name, got), expected in zip(model.model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5, msg=name)
    moved = {k: v for k, v in model.model.named_buffers() if k.endswith(("running_mean", "running_var"))}
    for name, value in moved.items():
        torch.testing.assert_close(value, dict(plain.named_buffers())[name], rtol=1e-3, atol=1e-5, msg=name)
    assert all(
        torch.equal(b, dict(source.named_buffers())[k]) for k, b in model.model.named_buffers() if k not in moved
    )
    assert not torch.equal(model(x), logits)


@pytest.mark.parametrize("aware", [False, True])
def test_batch_size_does_not_matter(trained, images, aware):
    """Within 1e-4 of the largest logit, over 30 images and five updates."""
    source = models.with_iabn(trained("bn"), k=1.0) if aware else trained("bn")
    runs = [torch.cat([model(x) for x in images.split(size)]) for size in (1, 4, 30) if (model := online(source))]
    scale = float(runs[0].abs().max())
    for run in runs[1:]:
        assert float((run - runs[0]).abs().max()) < 1e-4 * scale
        assert torch.equal(run.argmax(dim=1), runs[0].argmax(dim=1))


def test_updates_fall_inside_a_batch_after_each_period(trained, images):
    model, source = online(trained("bn")), trained("bn").eval()
    logits = model(images[:10])
    with torch.no_grad():
        frozen = source(images[:10])
    torch.testing.assert_close(logits[:6], frozen[:6], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits[6:], frozen[6:], rtol=1e-3, atol=1e-3)
    assert int(model.adapter.images_seen) == 10


def test_nothing_is_learnt_between_updates(trained, images, flat):
    model = online(trained("bn"))
    before = flat(dict(model.model.state_dict()))
    for x in images[:5].split(1):
        model(x)
        assert model.last.loss is None
    assert flat(dict(model.model.state_dict())) == before
    model(images[5:6])
    assert model.last.loss is not None
    assert flat(dict(model.model.state_dict())) != before


def test_a_memory_of_one_image_teaches_nothing(trained, images):
    model = online(trained("bn"), period=1)
    model(images[:1])
    assert model.last.loss is None
    model(images[1:2])
    assert torch.isfinite(model.last.loss)


def test_running_statistics_move_by_the_momentum(trained, images):
    still, moved = online(trained("bn"), bn_momentum=0.0), online(trained("bn"), bn_momentum=0.5)
    before = [buffer.clone() for buffer in statistics(still.model)]
    still(images[:6])
    moved(images[:6])
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(still.model), strict=True))
    assert not torch.allclose(statistics(moved.model)[0], before[0])
    usual = [m.momentum for m in moved.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert usual == [m.momentum for m in trained("bn").modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(m.training for m in moved.model.modules())


class Spoil:
    def __init__(self) -> None:
        self.on = False

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.on and output.requires_grad:
            output.register_hook(lambda gradient: gradient * torch.nan)
        return output


def test_a_skipped_step_leaves_running_statistics(trained, images):
    source, spoil = trained("bn"), Spoil()
    model = online(source, bn_momentum=0.5)
    model.model.register_forward_hook(spoil)
    spoil.on = True
    model(images[:6])
    assert model.updater.skipped_steps == 1
    assert all(torch.equal(a, b) for a, b in zip(statistics(model.model), statistics(source), strict=True))


def test_images_whose_logits_overflow_are_not_remembered(trained, images):
    source = trained("bn")
    model = online(source)
    head = [m for m in model.model.modules() if isinstance(m, nn.Linear)][-1]
    handle = head.register_forward_hook(
        lambda module, inputs, output: output.index_fill(0, torch.tensor([1]), torch.inf)
    )
    model(images[:3])
    handle.remove()
    assert len(model.adapter.memory) == 2
    assert int(model.adapter.images_seen) == 3
    model(images[3:6])
    assert torch.isfinite(model.last.loss)


def test_masked_classes_do_not_keep_images_out(trained, images):
    model = online(trained("bn"))
    mask = torch.zeros(10).index_fill(0, torch.tensor([3, 4]), -torch.inf)
    model.model.register_forward_hook(lambda module, inputs, output: output + mask)
    model(images[:6])
    assert len(model.adapter.memory) == 6
    assert model.updater.skipped_steps == 0
    assert torch.isfinite(model.last.loss)


def test_figures_of_the_memory(trained, images):
    model = online(trained("bn"))
    model(images[:4])
    predicted = set(model.adapter.memory.classes.tolist())
    assert model.last.scalars["memory_images"] == 4
    assert model.last.scalars["memory_classes"] == len(predicted)


def test_a_memory_of_another_size_of_images_is_refused_before_anything_changes(trained, images, flat):
    model = online(trained("bn"))
    model(images[:4])
    before = flat(model.state_dict())
    with pytest.raises(tta.InputError, match="memory holds images of shape"):
        model(images[:4, :, :24, :24])
    assert flat(model.state_dict()) == before


def test_costs_are_per_period():
    assert (NOTE().facts.forwards, NOTE().facts.backwards, NOTE().facts.smallest_domain) == (2, 1, 64)
    often = NOTE(memory=64, period=16).facts
    assert (often.forwards, often.backwards, often.smallest_domain) == (5, 4, 16)


def test_layers_without_running_statistics_are_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(tta.InputError, match="layer '1' keeps none"):
        tta.online(network, "note")


@pytest.mark.parametrize(
    "arguments", [{"memory": 1}, {"period": 0}, {"seed": -1}, {"bn_momentum": 1.5}, {"bn_momentum": -0.1}]
)
def test_values_out_of_range(arguments):
    name, value = next(iter(arguments.items()))
    with pytest.raises(tta.InputError, match=f"{name}={value}"):
        NOTE(**arguments)
