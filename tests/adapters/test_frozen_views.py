"""The frozen source model over views."""

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import tta
from tta.adapters import FrozenViews
from tta.adapters.views import random_views
from tta.monitor import CostMeter


def noisy(image: Tensor) -> Tensor:
    return image + 0.2 * torch.randn_like(image)


@pytest.fixture
def images(digits) -> Tensor:
    return digits[0][900:925]


@pytest.fixture
def model(trained) -> nn.Module:
    return trained("gn")


@pytest.mark.parametrize("views", [None, noisy])
def test_mean_recomputed_plainly(model, images, views):
    """The first view is the image; the others come from the seed, the image's number and the view's."""
    online = tta.online(model, "frozenviews", count=3, views=views, seed=5)
    online(images[:4])
    logits = online(images[4:6])
    for row in range(2):
        image = images[4 + row : 5 + row]
        drawn = [random_views(image, online.adapter.views, (5, 4 + row, view), 1)[0] for view in (1, 2)]
        assert not torch.equal(*drawn)
        with torch.no_grad():
            mean = model(torch.cat([image, *drawn])).softmax(dim=1).mean(dim=0)
        torch.testing.assert_close(logits[row], mean.log())
        assert float(logits[row].exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_one_view_is_the_source_model(model, images):
    with torch.no_grad():
        source = model(images)
    assert torch.equal(tta.online(model, "frozenviews", count=1.0)(images), source.log_softmax(dim=1))


@pytest.mark.parametrize("count", [1.0, 1.25, 2.4, 1 + 1 / 3, 3.0])
@pytest.mark.parametrize("size", [1, 7])
def test_a_fraction_is_spread_evenly_and_counted_exactly(model, images, count, size):
    online = tta.online(model, "frozenviews", count=count, views=noisy)
    meter, spent = CostMeter(online.model), [0]
    for x in images.split(size):
        online(x)
        spent.append(meter.forwards)
        assert meter.forwards == math.floor(int(online.adapter.images_seen) * Fraction(count))
    if size == 1:
        each = {after - before for before, after in pairwise(spent)}
        assert each == {math.floor(count), math.ceil(count)}
    assert meter.backwards == 0
    assert online.adapter.facts.forwards == math.ceil(count)


def test_predictions_do_not_depend_on_how_the_stream_is_cut(model, images):
    whole, parts = (tta.online(model, "frozenviews", count=2.4) for _ in range(2))
    torch.testing.assert_close(whole(images), torch.cat([parts(x) for x in images.split(6)]), rtol=1e-4, atol=1e-4)


def test_a_fraction_goes_on_where_it_stood(model, images):
    whole, cut, resumed = (tta.online(model, "frozenviews", count=2.4) for _ in range(3))
    answers = [whole(x) for x in images.split(5)]
    for x in images.split(5)[:3]:
        cut(x)
    resumed.load_state_dict(cut.state_dict())
    assert all(torch.equal(resumed(x), answer) for x, answer in zip(images.split(5)[3:], answers[3:], strict=True))


def test_default_views_move_an_image_a_little_and_never_flip_it():
    column = torch.arange(32.0).repeat(1, 32, 1) / 32
    shown = torch.cat(random_views(column.unsqueeze(0), FrozenViews().views, (0,), count=40))
    inner = shown[:, 0, 8:24, 8:24]
    assert not torch.equal(inner[0], inner[1])
    assert (inner.diff(dim=2) > 0).all()
    assert (inner - column[0, 8:24, 8:24]).abs().max() < 5 / 32


def test_constant_logits_stay_constant(model, images):
    nn.init.zeros_(model.linear.weight)
    nn.init.zeros_(model.linear.bias)
    logits = tta.online(model, "frozenviews", count=2.5)(images)
    torch.testing.assert_close(logits, torch.full((25, 10), -math.log(10)))


@pytest.mark.parametrize("arguments", [{"count": 0.9}, {"count": math.nan}, {"count": math.inf}, {"seed": -1}])
def test_values_out_of_range(arguments):
    name, value = next(iter(arguments.items()))
    with pytest.raises(tta.InputError, match=f"{name}={value}"):
        FrozenViews(**arguments)
