"""T3A's supports and templates by hand, on two classes in the plane."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tta
from tta.adapters import T3A


@pytest.fixture
def plane() -> nn.Sequential:
    """Features are the images themselves; class 0 looks along the first axis, class 1 along the second."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        model[1].bias.copy_(torch.tensor([0.5, 0.0]))
    return model


def binary_entropy(difference: float) -> float:
    p = 1 / (1 + math.exp(-difference))
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def test_supports_by_hand(plane):
    online = tta.online(plane, "t3a", filter_size=2)
    adapter = online.adapter
    # The rows: (1, 0) has logits (1.5, 0); (0, 2) has logits (0.5, 4).
    assert adapter.supports[:, 0].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    torch.testing.assert_close(adapter.entropies[:, 0], torch.tensor([binary_entropy(1.5), binary_entropy(3.5)]))
    assert torch.isinf(adapter.entropies[:, 1]).all()

    # Logits (3.5, 8) with |x| = 5, then (4.5, 6) with |x| = 5: both of class 1, differences 4.5 and 1.5.
    logits = online(torch.tensor([[3.0, 4.0], [4.0, 3.0]]))
    # The row of class 1 (3.5) and the first sample (4.5) stay; the second is less certain than both.
    template = F.normalize(torch.tensor([0.6, 0.8 + 1.0]), dim=0)
    torch.testing.assert_close(adapter.templates, torch.stack([torch.tensor([1.0, 0.0]), template]))
    torch.testing.assert_close(
        logits, torch.tensor([[3.0, 0.6 * 5 * template[0] + 4 * template[1]], [4.0, 4 * template[0] + 3 * template[1]]])
    )
    torch.testing.assert_close(
        adapter.entropies[1].sort().values, torch.tensor([binary_entropy(4.5), binary_entropy(3.5)])
    )

    # Logits (8.5, 0) and (2.5, 4): class 0 by 8, and class 1 by 1.5, which is not certain enough.
    online(torch.tensor([[8.0, 0.0], [2.0, 2.0]]))
    assert adapter.supports[0].tolist() == [[1.0, 0.0], [1.0, 0.0]]
    torch.testing.assert_close(adapter.templates[1], template)

    # Logits (0.5, 12): certain by 11.5; the row of class 1, now the least certain of three, leaves.
    online(torch.tensor([[0.0, 6.0]]))
    assert sorted(adapter.supports[1].tolist()) == [[0.0, 1.0], [pytest.approx(0.6), pytest.approx(0.8)]]
    assert binary_entropy(3.5) not in [pytest.approx(value) for value in adapter.entropies[1].tolist()]


def published(weight: Tensor, bias: Tensor, batches: list[Tensor], size: int) -> list[Tensor]:
    """Supports as lists, one class after the other, in the order of arrival."""

    def entropy(logits: Tensor) -> float:
        p = logits.double().softmax(dim=0)
        return float(-(p * p.log()).sum())

    kept: list[list[tuple[float, Tensor]]] = []
    for row in weight:
        kept.append([(entropy(weight @ row + bias), row)])
    answers = []
    for batch in batches:
        for z in batch:
            kept[int((weight @ z + bias).argmax())].append((entropy(weight @ z + bias), z))
        kept = [sorted(supports, key=lambda pair: pair[0])[:size] for supports in kept]
        templates = [sum(z / z.norm() for _, z in supports) for supports in kept]
        answers.append(torch.stack([torch.stack([z @ (t / t.norm()) for t in templates]) for z in batch]))
    return answers


@pytest.mark.parametrize("size", [1, 3, 50])
def test_stream_of_batches_against_lists_per_class(size):
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5))
    batches = list((2 * torch.randn(40, 6)).split([7, 1, 20, 12]))
    weight, bias = (parameter.detach().clone() for parameter in model[1].parameters())
    expected = published(weight, bias, batches, size)
    online = tta.online(model, "t3a", filter_size=size)
    for x, answer in zip(batches, expected, strict=True):
        torch.testing.assert_close(online(x), answer, rtol=1e-4, atol=1e-5)
    assert online.adapter.supports.shape == (5, size, 6)


def test_predict_uses_the_supports_and_adapt_adds_the_batch_first(plane):
    online = tta.online(plane, "t3a")
    x = torch.tensor([[3.0, 4.0]])
    assert torch.equal(online.adapter.predict(online.model, x), torch.tensor([[3.0, 4.0]]))
    logits = online(x)
    assert logits[0, 1] > 4.0
    assert torch.equal(online.adapter.predict(online.model, x), logits)


def test_at_equal_entropy_the_earlier_support_stays(plane):
    online = tta.online(plane, "t3a", filter_size=1)
    with torch.no_grad():
        plane[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        plane[1].bias.zero_()
    # The first and the second have the same difference of logits, 4.
    online(torch.tensor([[1.0, 5.0], [2.0, 6.0]]))
    torch.testing.assert_close(online.adapter.supports[1, 0], F.normalize(torch.tensor([1.0, 5.0]), dim=0))


def test_a_class_that_its_own_row_is_not_predicted_as_still_has_it(plane):
    """The published code would give that class no support, and so the logit 0."""
    with torch.no_grad():
        plane[1].bias.copy_(torch.tensor([100.0, 0.0]))
    logits = tta.online(plane, "t3a")(torch.tensor([[-1.0, -3.0]]))
    assert logits[0, 1] == -3.0


def test_a_sample_with_non_finite_features_enters_no_support():
    class Dividing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x / x.sum(dim=1, keepdim=True))

    model = Dividing()
    x = torch.rand(4, 3)
    x[1] = 0.0
    spoilt, clean = tta.online(copy.deepcopy(model), "t3a"), tta.online(model, "t3a")
    spoilt(x)
    clean(x[[0, 2, 3]])
    assert torch.equal(spoilt.adapter.templates, clean.adapter.templates)
    assert torch.isfinite(spoilt.adapter.templates).all()


def test_memory_does_not_grow(plane):
    online = tta.online(plane, "t3a", filter_size=3)
    sizes = {name: value.numel() for name, value in online.adapter.state_dict().items()}
    for _ in range(20):
        online(torch.randn(9, 2))
    assert {name: value.numel() for name, value in online.adapter.state_dict().items()} == sizes
    assert sizes["supports"] == 2 * 3 * 2


@pytest.mark.parametrize("size", [0, -1, None, 2.5])
def test_keeping_all_is_refused(size):
    with pytest.raises(tta.InputError, match=f"filter_size={size}: need a whole number >= 1; keeping all supports"):
        T3A(filter_size=size)


def test_logits_that_the_head_does_not_make_are_refused():
    model = nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3)), nn.Flatten(), nn.AvgPool1d(2))
    with pytest.raises(tta.InputError, match="returned 3 logits and its last linear layer has 6 outputs"):
        tta.online(model, "t3a")(torch.randn(2, 4))


class TwoHeads(nn.Module):
    """The mean of two heads, as in distilled vision transformers."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.head_dist = nn.Linear(4, 3)
        self.both = both

    def forward(self, x: Tensor) -> Tensor:
        return (self.head(x) + self.head_dist(x)) / 2 if self.both else self.head_dist(x)


def test_two_heads_are_refused_unless_the_last_makes_the_logits():
    online = tta.online(TwoHeads(both=True), "t3a")
    before = online.adapter.templates.clone()
    with pytest.raises(tta.InputError, match="logits are not what its last linear layer gives"):
        online(torch.randn(2, 4))
    assert torch.equal(online.adapter.templates, before)
    assert tta.online(TwoHeads(both=False), "t3a")(torch.randn(2, 4)).shape == (2, 3)


@pytest.mark.parametrize("kind", ["bn", "ln"])
def test_bf16_rounds_features_and_not_templates(build, stream, kind):
    """One autocast block around the stream or one around each batch is the same."""
    full, around, each = (build("t3a", kind) for _ in range(3))
    expected = [full(x) for x in stream[:3]]
    with torch.autocast("cpu", torch.bfloat16):
        got = [around(x) for x in stream[:3]]
    for x, a, b in zip(stream, expected, got, strict=False):
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(each(x), b)
        assert b.dtype == torch.float32
        assert not torch.equal(a, b)
        assert (a - b).abs().max() <= 0.04 * a.abs().max()
    torch.testing.assert_close(around.adapter.templates.norm(dim=1), torch.ones(10))
