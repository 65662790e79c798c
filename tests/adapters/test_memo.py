"""MEMO: one step per image, and back."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

import tta
from tta.adapters import MEMO
from tta.adapters.augmix_views import AugMixViews
from tta.functional.normalization import batch_norm_layers


class Darker(nn.Module):
    """No randomness: half as bright."""

    def forward(self, image: Tensor) -> Tensor:
        return 0.5 * image


@pytest.fixture
def images(digits) -> Tensor:
    return digits[0][900:904]


def online(model: nn.Module, **arguments) -> tta.OnlineModel:
    return tta.online(
        copy.deepcopy(model), "memo", **{"lr": 0.05, "count": 2, "views": v2.RandomHorizontalFlip(), **arguments}
    )


def mixed(inputs: Tensor, layer: nn.BatchNorm2d, prior: float) -> None:
    """Write the mixture of running statistics and those of these inputs, of which there is one pass."""
    share = 1 / (prior + 1)
    values = inputs.numel() // inputs.shape[1]
    variance, mean = torch.var_mean(inputs, dim=(0, 2, 3), correction=1 if values > 1 else 0)
    layer.running_mean.mul_(1 - share).add_(share * mean)
    layer.running_var.mul_(1 - share).add_(share * variance)


@pytest.mark.parametrize("kind", ["bn", "ln", "gn"])
@pytest.mark.parametrize("prior", [16.0, 1.0])
def test_step_recomputed_plainly(trained, images, kind, prior):
    """Entropy of the mean softmax of two equal views, a plain SGD step on everything, statistics N/(N+1) source."""
    source, image = trained(kind).eval(), images[:1]

    def run(model: nn.Module, x: Tensor) -> Tensor:
        model = copy.deepcopy(model) if not torch.is_grad_enabled() else model
        kept = [(layer, layer.running_mean.clone(), layer.running_var.clone()) for _, layer in batch_norm_layers(model)]
        handles = [
            layer.register_forward_pre_hook(lambda module, inputs: mixed(inputs[0].detach(), module, prior))
            for layer, _, _ in kept
        ]
        out = model(x)
        for layer, mean, variance in kept:
            layer.running_mean, layer.running_var = mean, variance
        for handle in handles:
            handle.remove()
        return out

    plain = copy.deepcopy(source)
    probabilities = run(plain, 0.5 * image.expand(2, -1, -1, -1)).softmax(dim=1).mean(dim=0)
    loss = -(probabilities * probabilities.log()).sum()
    parameters = list(plain.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 0.05 * gradient if gradient is not None else 0.0
        expected, untouched = run(plain, image), run(source, image)

    model = online(source, views=Darker(), prior_strength=prior, momentum=0.0)
    torch.testing.assert_close(model(image), expected, rtol=1e-3, atol=1e-3)
    assert model.last.loss.item() == pytest.approx(loss.item(), rel=1e-4)
    torch.testing.assert_close(model.adapter.predict(model.model, image), untouched, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, untouched, rtol=1e-2, atol=1e-2)


def test_batches_are_images_one_after_the_other(trained, images):
    together, apart = online(trained("bn")), online(trained("bn"))
    assert torch.equal(together(images), torch.cat([apart(image) for image in images.split(1)]))
    assert torch.equal(together(images[:2]), torch.cat([apart(image) for image in images[:2].split(1)]))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_source_and_a_new_optimizer_come_back_after_every_image(trained, images, flat, optimizer):
    model = online(trained("bn"), optimizer=optimizer)
    before = flat([model.model.state_dict(), model.optimizer.state_dict()])
    model(images)
    assert flat([model.model.state_dict(), model.optimizer.state_dict()]) == before


def test_an_optimizer_that_is_carried_over_remembers(trained, images):
    """The second image's first step of Adam depends on the first image then, and only then."""
    source = trained("gn")
    outputs = {}
    for carry in (False, True):
        one, other = (
            online(source, optimizer="adamw", lr=1e-3, carry_optimizer=carry, views=Darker()) for _ in range(2)
        )
        one(images[:1])
        other(images[1:2])
        outputs[carry] = one(images[2:3]), other(images[2:3])
        assert bool(one.optimizer.state) == carry
    assert torch.equal(*outputs[False])
    assert not torch.equal(*outputs[True])


def test_every_image_has_views_of_its_own(trained, images):
    model = online(trained("gn"), count=4, views=AugMixViews())
    drawn: list[Tensor] = []
    model.model.register_forward_pre_hook(lambda module, inputs: drawn.append(inputs[0].detach()))
    same = images[:1].expand(2, -1, -1, -1)
    model(same)
    views = [x for x in drawn if len(x) == 4]
    assert len(views) == 2
    assert len({tuple(view.flatten().tolist()) for view in torch.cat(views)}) == 8
    assert torch.equal(drawn[1], images[:1]), "predicted is the plain image"


def test_one_view_and_many_steps(trained, images):
    model = online(trained("gn"), count=1, steps=3)
    assert (model.adapter.facts.forwards, model.adapter.facts.backwards) == (4, 3)
    model(images[:1])
    assert model.last.loss < math.log(10)


def test_more_steps_make_the_views_surer(trained, images):
    source = trained("gn")
    losses = []
    for steps in (1, 4):
        model = online(source, steps=steps, views=Darker(), lr=0.01, momentum=0.0)
        model(images)
        losses.append(float(model.last.loss))
    assert losses[1] < losses[0]


def test_weights_come_back_after_an_error(trained, images, flat):
    model = online(trained("bn"))
    before = flat(dict(model.model.state_dict()))
    passes: list[int] = []

    def fail(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        passes.append(len(inputs[0]))
        if len(passes) == 2:
            raise MemoryError

    handle = model.model.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        model(images[:1])
    handle.remove()
    assert flat(dict(model.model.state_dict())) == before
    assert torch.equal(model(images[:1]), online(trained("bn"))(images[:1]))


def test_constant_logits_stay_constant(trained, images):
    source = trained("gn")
    nn.init.zeros_(source.linear.weight)
    nn.init.zeros_(source.linear.bias)
    assert online(source)(images).abs().max() < 1e-10


@pytest.mark.parametrize("arguments", [{"count": 0}, {"steps": 0}, {"seed": -1}, {"prior_strength": -1.0}])
def test_values_out_of_range(arguments):
    name, value = next(iter(arguments.items()))
    with pytest.raises(tta.InputError, match=f"{name}={value}"):
        MEMO(**arguments)
